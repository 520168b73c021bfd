//! TLS: mosquitto's clients, openssl's, and what no client should send.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rotamq::Broker;
use rotamq::config::{ClientCertificates, Listener, TlsSettings, TlsVersion};
use rustix::process::Signal;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certificates::{Authority, Files};
use crate::clients::{
    MOSQUITTO, MOSQUITTO_5, MOSQUITTO_31, MQTTJS_5, Options, Over, PAHO, Version, broker_with,
    mosquitto_command,
};
use crate::process::{Program, file, output};
use crate::raw::{self, Raw};
use crate::wait::{DEADLINE, until};

/// A broker that speaks TLS, on its first listener plain.
pub fn broker(server: &Files, change: impl FnOnce(&mut TlsSettings)) -> (Broker, SocketAddr) {
    let broker = broker_with(|config| {
        let mut listener = listener(server);
        change(&mut listener.tls);
        config.listeners.push(listener);
    });
    let address = tcp(&broker, 1);
    (broker, address)
}

pub fn listener(server: &Files) -> Listener {
    let mut listener = Listener::new("127.0.0.1:0".parse().unwrap());
    listener.tls.certificate = Some(server.certificate.clone());
    listener.tls.key = Some(server.key.clone());
    listener
}

/// Where a listener listens.
pub fn tcp(broker: &Broker, index: usize) -> SocketAddr {
    broker.addresses()[index].to_string().parse().unwrap()
}

fn over(authority: &Authority) -> Over {
    Over {
        ca: Some(authority.ca()),
        ..Over::default()
    }
}

/// mosquitto_pub with those arguments, to its end.
fn mosquitto_pub(address: SocketAddr, arguments: &[&Path]) -> Output {
    let mut command = mosquitto_command("mosquitto_pub", Version::V311, address);
    command
        .args(["-t", "t", "-m", "m", "-q", "1"])
        .args(arguments);
    command.output().unwrap()
}

#[test]
fn clients_that_we_did_not_write_speak_tls() {
    let authority = Authority::new("peers");
    let (broker, address) = broker(&authority.server("server"), |_| ());
    let over = over(&authority);
    for peer in [MOSQUITTO, MOSQUITTO_5, MOSQUITTO_31, PAHO, MQTTJS_5] {
        let options = |id| Options::clean(address, id).over(&over);
        let mut subscriber = peer.open(options("subscriber"));
        assert_eq!(subscriber.subscribe(&["t"], 1), [1]);
        let payload = "x".repeat(100_000);
        let mut publisher = peer.open(options("publisher"));
        publisher.publish("t", payload.as_bytes(), 1, false);
        assert!(subscriber.receive().text() == payload, "{peer:?}");
        // Also from a listener without TLS.
        PAHO.publish(broker.address(), "t", "plain", 1, false);
        assert_eq!(subscriber.receive().text(), "plain", "{peer:?}");
        subscriber.disconnect();
    }
    let days = broker.certificate_days_left();
    assert_eq!(days[0], None);
    assert!(days[1].is_some_and(|days| days > 365));
}

/// J14 among them: who was revoked is refused.
#[test]
fn client_certificates_are_asked_for_as_configured() {
    let authority = Authority::new("clients");
    let stranger = Authority::new("strangers");
    let server = authority.server("server");
    let (good, revoked) = (authority.client("good", 1), authority.client("revoked", 2));
    let expired = authority.issue("expired", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let strange = stranger.client("strange", 1);
    let ca = authority.ca();
    let list = authority.revoke(&[2], 4096);
    for asks in [ClientCertificates::Optional, ClientCertificates::Required] {
        let (_broker, address) = broker(&server, |tls| {
            tls.client_ca = Some(ca.clone());
            tls.client_certificates = Some(asks);
            tls.crl = Some(list.clone());
        });
        let anonymous = mosquitto_pub(address, &[Path::new("--cafile"), &ca]);
        assert_eq!(
            anonymous.status.success(),
            asks == ClientCertificates::Optional
        );
        for (files, is_let_in) in [
            (&good, true),
            (&revoked, false),
            (&expired, false),
            (&strange, false),
        ] {
            let [cafile, cert, key] = ["--cafile", "--cert", "--key"].map(Path::new);
            let arguments = [cafile, &ca, cert, &files.certificate, key, &files.key];
            let told = mosquitto_pub(address, &arguments);
            assert_eq!(
                told.status.success(),
                is_let_in,
                "{asks:?} {:?}: {told:?}",
                files.key
            );
        }
    }
    // A list that is out of date says nothing of anybody.
    let old = authority.revoke(&[], 2021);
    let (_broker, address) = broker(&server, |tls| {
        tls.client_ca = Some(ca.clone());
        tls.crl = Some(old.clone());
    });
    let [cafile, cert, key] = ["--cafile", "--cert", "--key"].map(Path::new);
    let arguments = [cafile, &ca, cert, &good.certificate, key, &good.key];
    assert!(!mosquitto_pub(address, &arguments).status.success());
}

/// `openssl s_client`, fed a CONNECT and kept open until `done`; what it says.
fn s_client(address: SocketAddr, arguments: &[&str], done: impl Fn() -> bool) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &address.to_string(), "-ign_eof"]);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = process.stdin.take().expect("it is piped");
    _ = input.write_all(&raw::connect(Version::V311, "openssl", true, 0));
    until("openssl has what it needs", || {
        done() || matches!(process.try_wait(), Ok(Some(_)))
    });
    // DISCONNECT, upon which the broker closes.
    _ = input.write_all(&[0xE0, 0]);
    drop(input);
    let output = process.wait_with_output().unwrap();
    let text = [&output.stdout[..], &output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// J11: nothing older than 1.2, and no weak cipher.
#[test]
fn old_versions_and_weak_ciphers_are_refused() {
    let authority = Authority::new("versions");
    let server = authority.server("server");
    let (_both, both) = broker(&server, |_| ());
    let (_new, new) = broker(&server, |tls| tls.version_min = TlsVersion::V1_3);
    let weakest = ["-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"];
    for (address, arguments, is_spoken) in [
        (both, &["-tls1_3"][..], true),
        (both, &["-tls1_2"], true),
        (both, &["-tls1_1"], false),
        (both, &["-tls1"], false),
        (
            both,
            &["-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0"],
            false,
        ),
        (
            both,
            &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
            false,
        ),
        (new, &["-tls1_3"], true),
        (new, &["-tls1_2"], false),
        (both, &["-tls1_3", "-alpn", "mqtt"], true),
        (both, &["-tls1_3", "-alpn", "h2"], false),
    ] {
        let all = match arguments.contains(&"-cipher") {
            true => arguments.to_vec(),
            false => [arguments, &weakest].concat(),
        };
        let (_, said) = s_client(address, &all, || true);
        let is_agreed = said.contains("-----BEGIN CERTIFICATE-----");
        assert_eq!(is_agreed, is_spoken, "{arguments:?}: {said}");
        if arguments.contains(&"-alpn") && is_spoken {
            assert!(said.contains("ALPN protocol: mqtt"), "{said}");
        }
    }
}

#[test]
fn sessions_are_resumed_until_certificates_are_read_again() {
    let authority = Authority::new("resumption");
    let (broker, address) = broker(&authority.server("server"), |_| ());
    for version in ["-tls1_2", "-tls1_3"] {
        let session = authority.folder().join(format!("session{version}"));
        let path = session.to_str().unwrap();
        _ = std::fs::remove_file(&session);
        let (_, first) = s_client(address, &[version, "-sess_out", path], || {
            std::fs::metadata(&session).is_ok_and(|file| file.len() > 0)
        });
        assert!(first.contains("New, "), "{version}: {first}");
        let (_, second) = s_client(address, &[version, "-sess_in", path], || true);
        assert!(second.contains("Reused, "), "{version}: {second}");
        broker.reload().unwrap();
        let (_, third) = s_client(address, &[version, "-sess_in", path], || true);
        assert!(third.contains("New, "), "{version}: {third}");
    }
}

#[test]
fn what_is_wrong_with_certificates_is_said_at_the_start() {
    use rcgen::date_time_ymd;
    let authority = Authority::new("wrong");
    let good = authority.server("good");
    let other = authority.server("other");
    let old = authority.issue("old", |params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = authority.issue("future", |params| {
        params.not_before = date_time_ymd(4095, 1, 1);
    });
    let nonsense = file(
        "nonsense.pem",
        "-----BEGIN NOTHING-----\nAAAA\n-----END NOTHING-----\n",
    );
    let broken = file(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    );
    let no_der = file(
        "no_der.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let locked = file(
        "locked.pem",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    );
    let chain = std::fs::read_to_string(&good.certificate).unwrap()
        + &std::fs::read_to_string(&old.certificate).unwrap();
    let chain = file("chain.pem", &chain);
    let missing = Path::new("/there/is/no.pem");
    let shown = |path: &Path| path.display().to_string();
    let with_ca = |ca: &Path| format!("tls_client_ca = '{}'\n", ca.display());
    let with_crl =
        |crl: &Path| with_ca(&authority.ca()) + &format!("tls_crl = '{}'\n", crl.display());
    let nothing = String::new();
    for (certificate, key, more, expected) in [
        (
            missing,
            &*good.key,
            nothing.clone(),
            format!("cannot read the certificate {}", shown(missing)),
        ),
        (
            &good.certificate,
            missing,
            nothing.clone(),
            format!("cannot read the key {}", shown(missing)),
        ),
        (
            &nonsense,
            &good.key,
            nothing.clone(),
            format!("the certificate {} is no PEM file with", shown(&nonsense)),
        ),
        (
            &broken,
            &good.key,
            nothing.clone(),
            format!("the certificate {} is no PEM file: ", shown(&broken)),
        ),
        (
            &no_der,
            &good.key,
            nothing.clone(),
            format!(
                "the certificate {} is no certificate of X.509",
                shown(&no_der)
            ),
        ),
        (
            &good.certificate,
            &nonsense,
            nothing.clone(),
            format!("the key {} is no PEM file with", shown(&nonsense)),
        ),
        (
            &good.certificate,
            &locked,
            nothing.clone(),
            format!("the key {} is encrypted", shown(&locked)),
        ),
        (
            &good.certificate,
            &other.key,
            nothing.clone(),
            format!(
                "the key {} does not fit the certificate {}",
                shown(&other.key),
                shown(&good.certificate)
            ),
        ),
        (
            &old.certificate,
            &old.key,
            nothing.clone(),
            format!("the certificate {} expired ", shown(&old.certificate)),
        ),
        (
            &chain,
            &good.key,
            nothing.clone(),
            format!("certificate 2 of {} expired ", shown(&chain)),
        ),
        (
            &future.certificate,
            &future.key,
            nothing.clone(),
            format!(
                "the certificate {} is not valid yet, but in ",
                shown(&future.certificate)
            ),
        ),
        // J13: authorities that are none let nobody in.
        (
            &good.certificate,
            &good.key,
            with_ca(&nonsense),
            format!("the certificate {} is no PEM", shown(&nonsense)),
        ),
        (
            &good.certificate,
            &good.key,
            with_ca(&no_der),
            format!("the certificate {} cannot be used", shown(&no_der)),
        ),
        (
            &good.certificate,
            &good.key,
            with_crl(&nonsense),
            format!(
                "the revocation list {} is no PEM file with",
                shown(&nonsense)
            ),
        ),
    ] {
        let listener = format!(
            "[[listener]]\naddress = '127.0.0.1:0'\ntls_certificate = '{}'\ntls_key = '{}'\n{more}",
            certificate.display(),
            key.display()
        );
        let path = file("wrong.toml", &listener);
        let output = output(&["--ephemeral", "--config", path.to_str().unwrap()]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{listener}: {stderr}");
        assert!(
            stderr.contains(&format!("rotamq: {expected}")),
            "{expected}: {stderr}"
        );
        assert_eq!(stderr.matches("rotamq: ").count(), 1, "{stderr}");
    }
}

/// SIGHUP: new connections see the new certificate, old ones notice nothing, and
/// a bad file changes nothing.
#[test]
fn certificates_are_read_again_while_connections_stay() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let files = before.server("server");
    let path = file(
        "reload.toml",
        &format!(
            "[[listener]]\naddress = '127.0.0.1:0'\ntls_certificate = '{}'\ntls_key = '{}'\n",
            files.certificate.display(),
            files.key.display()
        ),
    );
    let arguments = ["--ephemeral", "--config", path.to_str().unwrap()];
    let mut program = Program::start(&mut crate::process::rotamq(&arguments), "listening on ");
    let address = program.address;
    let knows = |authority: &Authority| {
        let arguments = [Path::new("--cafile"), &authority.ca()];
        mosquitto_pub(address, &arguments).status.success()
    };
    let mut subscriber = MOSQUITTO.open(Options::clean(address, "subscriber").over(&over(&before)));
    assert_eq!(subscriber.subscribe(&["t"], 1), [1]);
    assert!(knows(&before) && !knows(&after));
    assert_eq!(subscriber.receive().text(), "m");

    let next = after.server("server");
    std::fs::copy(&next.certificate, &files.certificate).unwrap();
    program.signal(Signal::HUP);
    let line = program.line("certificates stay as they were");
    assert!(line.contains("does not fit"), "{line}");
    assert!(knows(&before));
    assert_eq!(subscriber.receive().text(), "m");

    std::fs::copy(&next.key, &files.key).unwrap();
    program.signal(Signal::HUP);
    program.line("certificates read");
    assert!(knows(&after) && !knows(&before));
    assert_eq!(subscriber.receive().text(), "m");
}

/// A client's end of TLS, from the library that the broker's is from too.
pub fn client(authority: &Authority) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.ca()).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// Hands on no more than a byte at a time.
struct Dribbling(TcpStream);

impl Read for Dribbling {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Dribbling {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// J10: a ClientHello in pieces, and every later record too.
#[test]
fn a_handshake_may_come_byte_by_byte() {
    let authority = Authority::new("dribbling");
    let (_broker, address) = broker(&authority.server("server"), |_| ());
    let stream = Raw::open(address).stream;
    let mut client = StreamOwned::new(client(&authority), Dribbling(stream));
    client
        .write_all(&raw::connect(Version::V311, "dribbling", true, 0))
        .unwrap();
    let mut connack = [0; 4];
    client.read_exact(&mut connack).unwrap();
    assert_eq!(connack, [0x20, 2, 0, 0]);
}

/// J08, J10: a ClientHello that claims 16 MiB, alerts in place of one, plain
/// MQTT, HTTP; each is closed, and the broker goes on.
#[test]
fn what_is_no_handshake_is_closed() {
    let authority = Authority::new("no handshake");
    let broker = broker_with(|config| {
        // For who says that it ends, and does not.
        config.limits.connect_timeout = Duration::from_millis(500);
        config.listeners.push(listener(&authority.server("server")));
    });
    let address = tcp(&broker, 1);
    let connect = raw::connect(Version::V311, "plain", true, 0);
    for (what, bytes) in [
        (
            "a ClientHello of 16 MiB",
            &b"\x16\x03\x01\x00\x04\x01\xFF\xFF\xFF"[..],
        ),
        ("close_notify", b"\x15\x03\x03\x00\x02\x01\x00"),
        ("a fatal alert", b"\x15\x03\x03\x00\x02\x02\x28"),
        ("data before a key", b"\x17\x03\x03\x00\x01\x00"),
        ("a record beyond its limit", b"\x16\x03\x01\xFF\xFF"),
        ("CONNECT", &connect),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
    ] {
        for by_byte in [false, true] {
            let mut client = Raw::open(address);
            for piece in bytes.chunks(if by_byte { 1 } else { bytes.len() }) {
                // It may be closed before the last byte.
                if client.stream.write_all(piece).is_err() {
                    break;
                }
            }
            let mut answer = Vec::new();
            match client.stream.read_to_end(&mut answer) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => {
                    panic!("{what}: {error}")
                }
                _ => assert!(answer.is_empty() || answer[0] == 0x15, "{what}: {answer:?}"),
            }
        }
    }
    until("they are gone", || broker.connections_len() == 0);
    assert!(
        mosquitto_pub(address, &[Path::new("--cafile"), &authority.ca()])
            .status
            .success()
    );
}

/// B05: one deadline for all that comes before CONNACK, and no way to stretch it;
/// those who wait for it keep nobody else out.
#[test]
fn who_does_not_finish_its_handshake_is_closed_in_time() {
    let authority = Authority::new("slow");
    let broker = broker_with(|config| {
        config.limits.connect_timeout = Duration::from_millis(500);
        config.listeners.push(listener(&authority.server("server")));
    });
    let address = tcp(&broker, 1);
    let mut hello = Vec::new();
    client(&authority).write_tls(&mut hello).unwrap();
    let half: Vec<Raw> = (0..200)
        .map(|number| {
            let mut half = Raw::open(address);
            half.send(&hello[..number % hello.len()]);
            half
        })
        .collect();
    // A handshake that is over, and no CONNECT.
    let mut stream = StreamOwned::new(client(&authority), Raw::open(address).stream);
    stream.flush().unwrap();
    let said = mosquitto_pub(address, &[Path::new("--cafile"), &authority.ca()]);
    assert!(said.status.success(), "{said:?}");
    let mut rest = Vec::new();
    assert_eq!(
        stream
            .read_to_end(&mut rest)
            .map_err(|error| error.kind())
            .unwrap_or(0),
        0
    );
    let mut dribbling = Raw::open(address);
    let between = Duration::from_millis(5);
    dribbling.stream.set_read_timeout(Some(between)).unwrap();
    let mut hello = hello.iter();
    let sent_all = loop {
        let Some(byte) = hello.next() else { break true };
        if dribbling.stream.write_all(&[*byte]).is_err() {
            break false;
        }
        match dribbling.stream.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break false,
        }
    };
    assert!(!sent_all, "closed before the ClientHello was whole");
    for mut half in half {
        half.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        assert!(half.until_closed().is_empty());
    }
    until("they are gone", || broker.connections_len() == 0);
}

/// The way from nothing to TLS that docs/transports.md shows.
#[test]
fn the_commands_of_the_docs_work() {
    let docs = include_str!("../../docs/transports.md");
    let block = |begin: &str, with: &str| {
        let blocks = docs
            .split("\n```")
            .filter_map(|block| block.strip_prefix(begin));
        let found = blocks.map(str::to_owned).find(|block| block.contains(with));
        found.unwrap_or_else(|| panic!("no {begin} with {with}"))
    };
    let folder = Authority::new("docs").folder().to_owned();
    let script = block("sh", "openssl req -x509");
    let made = Command::new("bash")
        .args(["-e", "-c", &script])
        .current_dir(&folder)
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "{made:?}");
    let config = block("toml", "tls_key").replace(":8883", ":0");
    std::fs::write(folder.join("rotamq.toml"), config).unwrap();
    let mut command = crate::process::rotamq(&["--ephemeral", "--config", "rotamq.toml"]);
    let program = Program::start(command.current_dir(&folder), "listening on ");
    let ca = folder.join("ca.pem");
    let said = mosquitto_pub(program.address, &[Path::new("--cafile"), &ca]);
    assert!(said.status.success(), "{said:?}");
    let line = docs.lines().find(|line| line.contains("    rotamq sub "));
    let line = line.expect("it shows our own client").replace('\'', "");
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let port = program.address.port().to_string();
    let mut command = crate::process::rotamq(&words);
    let said = command
        .args(["-p", &port, "-E"])
        .current_dir(&folder)
        .output();
    assert!(
        said.as_ref().is_ok_and(|said| said.status.success()),
        "{said:?}"
    );
}
