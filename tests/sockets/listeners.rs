//! Listeners that differ: in whom they ask who a client is, and in limits.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rotamq::Broker;
use rotamq::config::{
    AuthenticatorKind, ClientCertificates, ClientUser, Config, KeysAt, Listener, TokenAlgorithm,
};
use rotamq::message::Qos;
use rotamq::protocol::{
    Connect, Packet, Properties, PropertiesBuf, Property, Publish, ReasonCode, Version, decode,
    encode,
};
use serde_json::json;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::certificates::{Authority, Files};
use crate::clients::{
    MOSQUITTO, MOSQUITTO_5, Options, PAHO, PAHO_5, Version as Spoken, mosquitto_command,
};
use crate::process::{file, output};
use crate::raw::Raw;
use crate::tls::{listener, tcp};
use crate::tokens;
use crate::wait::until;

/// ann has "ann's secret".
const USERS: &str = include_str!("../fixtures/mosquitto_passwd");

/// Everybody may publish what they are, and nothing else.
const ACL: &str = "topic write is/nobody\npattern write is/%u\n";

/// A client of the matrix, and what it says of itself.
#[derive(Clone, Debug, Default)]
struct Claim {
    certificate: bool,
    user: Option<&'static str>,
    password: Option<String>,
    method: Option<(&'static str, String)>,
}

/// What a claim is worth where it is looked into.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Worth {
    Of(&'static str),
    Nothing,
    /// It says nothing of this kind.
    Unsaid,
}

impl Claim {
    /// By hand, for each authenticator by itself.
    fn worth(&self, kind: AuthenticatorKind) -> Worth {
        let is_token = |text: &str| text.matches('.').count() == 2;
        let password = self.password.as_deref();
        match kind {
            AuthenticatorKind::Certificate => match (self.certificate, self.user) {
                (false, _) => Worth::Unsaid,
                (true, None | Some("carl")) => Worth::Of("carl"),
                (true, Some(_)) => Worth::Nothing,
            },
            AuthenticatorKind::Token => match password {
                Some(text) if is_token(text) && text.ends_with("wrong") => Worth::Nothing,
                Some(text) if is_token(text) => Worth::Of("toby"),
                _ => Worth::Unsaid,
            },
            AuthenticatorKind::Password => match (self.user, password) {
                (Some("ann"), Some("ann's secret")) => Worth::Of("ann"),
                (Some("ann"), Some(_)) => Worth::Nothing,
                _ => Worth::Unsaid,
            },
            // A service is none of those configured here.
            AuthenticatorKind::Scram | AuthenticatorKind::Http => Worth::Unsaid,
        }
    }

    /// Who it is found to be at a listener; `None`: it is refused.
    fn expected(
        &self,
        asked: Option<&[AuthenticatorKind]>,
        anonymous: bool,
    ) -> Option<&'static str> {
        let asked = asked.unwrap_or(&AuthenticatorKind::ALL);
        if let Some((method, data)) = &self.method {
            let is_right = !data.ends_with("wrong");
            return match *method {
                "JWT" if asked.contains(&AuthenticatorKind::Token) => is_right.then_some("toby"),
                // Asked for its proof, which it does not give here.
                "SCRAM-SHA-256" if asked.contains(&AuthenticatorKind::Scram) => Some("asked"),
                _ => None,
            };
        }
        for kind in asked {
            match self.worth(*kind) {
                Worth::Of(user) => return Some(user),
                Worth::Nothing => return None,
                Worth::Unsaid => {}
            }
        }
        let has_named = self.user.is_some() || self.password.is_some();
        (anonymous && (asked.is_empty() || !has_named)).then_some("nobody")
    }
}

fn claims() -> Vec<Claim> {
    let claims = json!({"sub": "toby", "exp": tokens::now() + 3600});
    let token = tokens::token(&json!({"alg": "HS256"}), &claims, tokens::hs256);
    let (signed, _) = token.rsplit_once('.').unwrap();
    let named = |user, password: &str| Claim {
        user: Some(user),
        password: Some(password.to_owned()),
        ..Claim::default()
    };
    let by_method = |method, data: &str| Claim {
        method: Some((method, data.to_owned())),
        ..Claim::default()
    };
    let mut claims = vec![
        Claim::default(),
        named("ann", "ann's secret"),
        named("ann", "guess"),
        named("nobody", "guess"),
        Claim {
            password: Some(token.clone()),
            ..Claim::default()
        },
        Claim {
            password: Some(format!("{signed}.wrong")),
            ..Claim::default()
        },
        by_method("SCRAM-SHA-256", "n,,n=ann,r=abcdefgh"),
        by_method("JWT", &token),
        by_method("JWT", &format!("{signed}.wrong")),
        by_method("NONE", "data"),
    ];
    for user in [None, Some("carl"), Some("ann")] {
        claims.push(Claim {
            certificate: true,
            user,
            ..Claim::default()
        });
    }
    let mut both = named("ann", "ann's secret");
    both.certificate = true;
    claims.push(both);
    claims
}

/// A client of TLS, with this certificate.
fn tls_client(authority: &Authority, files: Option<&Files>) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority.ca()).unwrap())
        .unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match files {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let certificate = CertificateDer::from_pem_file(&files.certificate).unwrap();
            let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
            builder
                .with_client_auth_cert(vec![certificate], key)
                .unwrap()
        }
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

struct Matrix {
    authority: Authority,
    carl: Files,
}

impl Matrix {
    /// Who the broker takes the client for, shown by what it may publish.
    fn found(&self, address: SocketAddr, claim: &Claim) -> Option<&'static str> {
        let files = claim.certificate.then_some(&self.carl);
        let tls = tls_client(&self.authority, files);
        let mut stream = StreamOwned::new(tls, Raw::open(address).stream);
        let mut properties = PropertiesBuf::new();
        if let Some((method, data)) = &claim.method {
            properties.push(Property::AuthenticationMethod(method));
            properties.push(Property::AuthenticationData(data.as_bytes()));
        }
        let connect = Packet::Connect(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive_secs: 0,
            properties: properties.as_properties(),
            client_id: "",
            will: None,
            user_name: claim.user,
            password: claim.password.as_deref().map(str::as_bytes),
        });
        send(&mut stream, &connect);
        match receive(&mut stream) {
            Told::Connack(ReasonCode::Success) => {}
            Told::Connack(_) => return None,
            Told::Auth => return Some("asked"),
            Told::Puback(_) => panic!("nothing is published yet"),
        }
        let mut users = Vec::new();
        for user in ["ann", "carl", "toby", "nobody", "somebody"] {
            let topic = format!("is/{user}");
            send(
                &mut stream,
                &Packet::Publish(Publish {
                    dup: false,
                    qos: Qos::AtLeastOnce,
                    retain: false,
                    topic: &topic,
                    packet_id: std::num::NonZeroU16::new(1),
                    properties: Properties::EMPTY,
                    payload: b"",
                }),
            );
            match receive(&mut stream) {
                Told::Puback(ReasonCode::NotAuthorized) => {}
                Told::Puback(_) => users.push(user),
                other => panic!("{other:?}"),
            }
        }
        match users[..] {
            [user] => Some(user),
            _ => panic!("{users:?} at once"),
        }
    }
}

#[derive(Debug)]
enum Told {
    Connack(ReasonCode),
    Auth,
    Puback(ReasonCode),
}

fn send(stream: &mut impl std::io::Write, packet: &Packet<'_>) {
    let mut bytes = Vec::new();
    encode(packet, Version::V5, &mut bytes);
    stream.write_all(&bytes).unwrap();
}

fn receive(stream: &mut impl std::io::Read) -> Told {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        return match decode(&bytes, Version::V5, 1 << 20).unwrap() {
            None => continue,
            Some((Packet::Connack(connack), _)) => Told::Connack(connack.reason),
            Some((Packet::Auth(_), _)) => Told::Auth,
            Some((Packet::Puback(ack), _)) => Told::Puback(ack.reason),
            Some((other, _)) => panic!("{other:?}"),
        };
    }
}

/// B17: every listener lets in whom it is to let in, as whom they are, whatever
/// the others do.
#[test]
fn each_listener_asks_whom_it_is_to_ask() {
    use AuthenticatorKind::{Certificate, Password, Scram, Token};
    let authority = Authority::new("matrix");
    let server = authority.server("server");
    let matrix = Matrix {
        carl: authority.client("carl", 1),
        authority,
    };
    let lists: [Option<&[AuthenticatorKind]>; 9] = [
        None,
        Some(&[]),
        Some(&[Certificate]),
        Some(&[Token]),
        Some(&[Password]),
        Some(&[Scram]),
        Some(&[Certificate, Password]),
        Some(&[Password, Token, Certificate]),
        Some(&[Scram, Token]),
    ];
    for of_all in [false, true] {
        let mut config = config("matrix");
        config.allow_anonymous = of_all;
        config.listeners.clear();
        let mut cases = Vec::new();
        for asked in lists {
            for anonymous in [None, Some(false), Some(true)] {
                let mut listener = listener(&server);
                listener.tls.client_ca = Some(matrix.authority.ca());
                listener.tls.client_certificates = Some(ClientCertificates::Optional);
                listener.tls.client_user = Some(ClientUser::CommonName);
                listener.authentication = asked.map(<[_]>::to_vec);
                listener.allow_anonymous = anonymous;
                config.listeners.push(listener);
                cases.push((asked, anonymous));
            }
        }
        let broker = Broker::start(config).unwrap();
        for (at, (asked, anonymous)) in cases.into_iter().enumerate() {
            let address = tcp(&broker, at);
            for claim in claims() {
                let expected = claim.expected(asked, anonymous.unwrap_or(of_all));
                let found = matrix.found(address, &claim);
                assert_eq!(
                    found, expected,
                    "{asked:?} {anonymous:?} {of_all}: {claim:?}"
                );
            }
        }
        broker.stop();
    }
}

/// Users of all kinds, and the rules of the matrix.
fn config(name: &str) -> Config {
    let mut config = Config::default();
    config.http.address = None;
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    config.store.ephemeral = true;
    let authentication = &mut config.authentication;
    authentication.password_file = Some(file(&format!("{name}.passwd"), USERS));
    let keys = file(&format!("{name}.keys.json"), &tokens::key_set());
    authentication.tokens.keys = Some(KeysAt::File(keys));
    authentication.tokens.algorithms = vec![TokenAlgorithm::HS256];
    authentication.ban.failures_per_address_max = 0;
    config.access.acl_file = Some(file(&format!("{name}.acl"), ACL));
    config
}

#[test]
fn who_could_know_nobody_is_not_asked() {
    for (kind, needs) in [
        (AuthenticatorKind::Certificate, "tls_client_user"),
        (AuthenticatorKind::Token, "jwt_keys"),
        (AuthenticatorKind::Password, "password_file"),
        (AuthenticatorKind::Scram, "password_file"),
        (AuthenticatorKind::Http, "http_address"),
    ] {
        let mut config = Config::default();
        config.http.address = None;
        config.store.ephemeral = true;
        let mut listener = Listener::new("127.0.0.1:0".parse().unwrap());
        listener.authentication = Some(vec![kind]);
        config.listeners = vec![listener];
        let error = Broker::start(config).err().expect("it needs something");
        assert!(error.to_string().contains(needs), "{error}");
    }
    let path = file(
        "asks_nobody.toml",
        "[[listener]]\naddress = '127.0.0.1:0'\nauthentication = ['password']\n",
    );
    let path = path.to_str().unwrap();
    let checked = output(&["config", "check", path]);
    assert_eq!(checked.status.code(), Some(1));
    let stderr = String::from_utf8(checked.stderr).unwrap();
    let said = "listener[0].authentication: \"password\" needs password_file in [authentication]";
    assert!(stderr.contains(&format!("{path}:3: {said}")), "{stderr}");
}

fn sh(folder: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    let output = command.args(["-ec", script]).current_dir(folder).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Certificates that openssl has made, with mosquitto's clients.
#[test]
fn mosquittos_clients_are_who_their_certificates_say() {
    let authority = Authority::new("openssl");
    let folder = authority.folder().to_owned();
    // As docs/authentication.md has it.
    sh(
        &folder,
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
             -subj '/CN=authority' -keyout ca2.key -out ca2.pem
         openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
             -subj '/C=GB/O=Fish, Chips/CN=sensor-7' -keyout sensor-7.key -out sensor-7.csr
         printf 'subjectAltName=IP:127.0.0.1,email:seven@example.org,DNS:seven\\n' > sensor-7.ext
         openssl x509 -req -in sensor-7.csr -CA ca2.pem -CAkey ca2.key -CAcreateserial -days 1 \
             -extfile sensor-7.ext -out sensor-7.pem",
    );
    let dn = sh(
        &folder,
        "openssl x509 -in sensor-7.pem -noout -subject -nameopt RFC2253",
    );
    let dn = dn.trim().strip_prefix("subject=").unwrap().to_owned();
    let server = authority.server("server");
    let names = [
        (ClientUser::CommonName, "sensor-7"),
        (ClientUser::AlternativeName, "seven@example.org"),
        (ClientUser::DistinguishedName, &*dn),
    ];
    let acl: String = names
        .iter()
        .enumerate()
        .map(|(at, (_, user))| format!("user {user}\ntopic write is/{at}\n"))
        .collect();
    let mut config = Config::default();
    config.http.address = None;
    config.store.ephemeral = true;
    config.allow_anonymous = false;
    config.access.acl_file = Some(file("openssl.acl", &acl));
    config.listeners = names
        .iter()
        .map(|(user, _)| {
            let mut listener = listener(&server);
            listener.tls.client_ca = Some(folder.join("ca2.pem"));
            listener.tls.client_user = Some(*user);
            listener
        })
        .collect();
    let broker = Broker::start(config).unwrap();
    for (at, (kind, user)) in names.into_iter().enumerate() {
        for (topic, name, is_taken) in [
            (at, None, true),
            (at, Some(user), true),
            (at, Some("another"), false),
            ((at + 1) % 3, None, false),
        ] {
            let address = tcp(&broker, at);
            let mut command = mosquitto_command("mosquitto_pub", Spoken::V311, address);
            command
                .args(["--cafile", authority.ca().to_str().unwrap()])
                .args(["--cert", "sensor-7.pem", "--key", "sensor-7.key"])
                .args(["-t", &format!("is/{topic}"), "-m", "m", "-q", "1"])
                .args(["-i", &format!("c{at}{topic}{}", name.is_some())])
                .current_dir(&folder);
            name.into_iter()
                .for_each(|name| _ = command.args(["-u", name]));
            let told = command.output().unwrap();
            assert_eq!(
                told.status.success(),
                is_taken,
                "{kind:?} {name:?} {told:?}"
            );
        }
    }
    broker.stop();
}

/// What one listener has for itself holds there, and nowhere else.
#[test]
fn limits_of_a_listener_are_its_own() {
    let mut config = Config::default();
    config.http.address = None;
    config.store.ephemeral = true;
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    let mut narrow = config.listeners[0].clone();
    narrow.limits.connections_max = Some(2);
    narrow.limits.packet_bytes_max = Some(1000);
    narrow.limits.subscriptions_per_client_max = Some(1);
    narrow.limits.keep_alive_secs_max = Some(7);
    narrow.limits.connect_timeout = Some(std::time::Duration::from_millis(100));
    config.listeners.push(narrow);
    let broker = Broker::start(config).unwrap();
    let (wide, narrow) = (tcp(&broker, 0), tcp(&broker, 1));

    // Who says nothing is closed at its own time.
    assert_eq!(Raw::open(narrow).read(), None);
    until("it is gone", || broker.connections_len() == 0);

    let mut told = Raw::open(narrow);
    let mut connect = Vec::new();
    encode(
        &Packet::Connect(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive_secs: 60,
            properties: Properties::EMPTY,
            client_id: "told",
            will: None,
            user_name: None,
            password: None,
        }),
        Version::V5,
        &mut connect,
    );
    told.send(&connect);
    let connack = told.packet();
    let (packet, _) = decode(&connack, Version::V5, 1 << 20).unwrap().unwrap();
    let Packet::Connack(connack) = packet else {
        panic!("{packet:?}");
    };
    let said: Vec<_> = connack.properties.iter().collect();
    let max = std::num::NonZeroU32::new(1000).unwrap();
    assert!(said.contains(&Property::MaximumPacketSize(max)), "{said:?}");
    assert!(said.contains(&Property::ServerKeepAlive(7)), "{said:?}");

    let mut paho = PAHO.open(Options::clean(narrow, "paho"));
    assert_eq!(paho.subscribe(&["a"], 1), [1]);
    assert_eq!(paho.subscribe(&["b"], 1), [0x80]);
    // There are two now; a third finds no room, but elsewhere there is some.
    assert_eq!(Raw::open(narrow).read(), None);
    let mut other = PAHO.open(Options::clean(wide, "other"));
    assert_eq!(other.subscribe(&["a", "b", "c"], 1), [1, 1, 1]);
    other.publish("a", &[b'x'; 5000], 1, false);
    assert_eq!(paho.receive().payload.len(), 5000);
    // One packet more than the listener takes.
    told.send(&crate::raw::packet(0x30, &[0; 1000]));
    let last = told.until_closed().pop().expect("DISCONNECT");
    assert_eq!((last[0], last[2]), (0xE0, 0x95), "{last:x?}");
    broker.stop();
}

/// Clients below a mount point, and one who sees it all; as docs/transports.md
/// has it.
#[test]
fn a_mount_point_is_all_that_its_clients_see() {
    let mut config = Config::default();
    config.http.address = None;
    config.store.ephemeral = true;
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    let mut mounted = config.listeners[0].clone();
    mounted.mount_point = Some("site1/".to_owned());
    config.listeners.push(mounted);
    let broker = Broker::start(config).unwrap();
    let (all, site) = (tcp(&broker, 0), tcp(&broker, 1));
    for peer in [PAHO, PAHO_5, MOSQUITTO, MOSQUITTO_5] {
        let mut outside = peer.open(Options::clean(all, "outside"));
        assert_eq!(outside.subscribe(&["#"], 1), [1]);
        let mut inside = peer.open(Options::clean(site, "inside").will("gone", "will", 1, false));
        assert_eq!(inside.subscribe(&["#", "$queue/jobs"], 1), [1, 1]);
        peer.publish(site, "a/b", "from inside", 1, true);
        for (client, topic) in [(&mut inside, "a/b"), (&mut outside, "site1/a/b")] {
            let message = client.receive();
            assert_eq!((&*message.topic, message.text()), (topic, "from inside"));
        }
        peer.publish(all, "$queue/site1/jobs", "a job", 1, false);
        let job = inside.receive();
        assert_eq!((&*job.topic, job.text()), ("$queue/jobs", "a job"));
        inside.disconnect();
        outside.disconnect();
        let mut late = peer.open(Options::clean(site, "late"));
        assert_eq!(late.subscribe(&["+/b"], 1), [1]);
        let kept = late.receive();
        assert_eq!((&*kept.topic, kept.retain), ("a/b", true));
        late.disconnect();
        peer.publish(site, "a/b", "", 1, true);
    }
    broker.stop();
}
