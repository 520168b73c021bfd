//! `rotamq pub`, `sub` and `queue` over TLS and Unix sockets.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use rotamq::config::{Address, ClientCertificates, Listener, TlsVersion};

use crate::certificates::{Authority, Files};
use crate::clients::{MOSQUITTO, broker_with};
use crate::process::{file, rotamq};
use crate::tls::{broker, tcp};
use crate::wait::until;

/// The exit code, what is printed, and what is complained of.
fn run(command: &[&str]) -> (Option<i32>, String, String) {
    let output = rotamq(command).output().unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (output.status.code(), stdout, stderr)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Each kind of command, to a listener that asks for client certificates, in
/// both versions of TLS.
#[test]
fn our_clients_speak_tls_and_show_certificates() {
    let authority = Authority::new("our clients");
    let files = authority.client("client", 1);
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        let (broker, address) = broker(&authority.server("server"), |tls| {
            tls.version_min = version;
            tls.client_ca = Some(authority.ca());
            tls.client_certificates = Some(ClientCertificates::Required);
        });
        let (ca, port) = (authority.ca(), address.port().to_string());
        let connect = [
            ["-h", "127.0.0.1"],
            ["-p", &port],
            ["--cafile", text(&ca)],
            ["--cert", text(&files.certificate)],
            ["--key", text(&files.key)],
        ];
        let run = |command: &[&str]| run(&[command, connect.as_flattened()].concat());
        let payload = "x".repeat(100_000);
        let put = ["pub", "-q", "1", "-r", "-t", "t", "-m", &payload];
        assert_eq!(run(&put), (Some(0), String::new(), String::new()));
        let expected = format!("{payload}\n");
        let taken = run(&["sub", "-t", "t", "-C", "1"]);
        assert_eq!(taken, (Some(0), expected, String::new()));
        let (code, shown, _) = run(&["queue", "create", "jobs"]);
        assert_eq!(code, Some(0), "{shown}");
        let (code, shown, _) = run(&["queue", "ls", "--json"]);
        assert!(code == Some(0) && shown.contains("jobs"), "{shown}");
        until("they are gone", || broker.connections_len() == 0);
    }
}

#[test]
fn our_clients_connect_by_the_socket_s_file() {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("commands.sock");
    _ = std::fs::remove_file(&path);
    let broker = broker_with(|config| {
        config
            .listeners
            .push(Listener::new(Address::Unix(path.clone())));
    });
    MOSQUITTO.publish(broker.address(), "t", "retained", 1, true);
    let taken = run(&["sub", "--unix", text(&path), "-t", "t", "-C", "1"]);
    assert_eq!(taken, (Some(0), "retained\n".to_owned(), String::new()));
    let created = run(&["queue", "create", "jobs", "--unix", text(&path)]);
    assert_eq!(created.0, Some(0), "{created:?}");
    broker.stop();
    let (_, _, complaint) = run(&["sub", "--unix", text(&path), "-t", "t", "-E"]);
    let expected = format!("rotamq: cannot connect to {}: ", path.display());
    assert!(complaint.starts_with(&expected), "{complaint}");
}

#[test]
fn what_keeps_apart_is_said_with_what_to_do() {
    // Of the same name, with the key that it had before; and somebody else's.
    let before = std::fs::read_to_string(Authority::new("apart").ca()).unwrap();
    let before = file("before.pem", &before);
    let (authority, stranger) = (Authority::new("apart"), Authority::new("stranger"));
    let server = authority.server("server");
    let old = authority.issue("old client", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let (ours, strange) = (authority.client("ours", 1), stranger.client("strange", 1));
    let (ca, other) = (authority.ca(), stranger.ca());
    let (broker_open, open) = broker(&server, |_| ());
    let (_strict, strict) = broker(&server, |tls| tls.client_ca = Some(ca.clone()));
    let for_another = authority.issue("named", |params| {
        let name = "mqtt.example.org".try_into().unwrap();
        params.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
    });
    let (_named, named) = broker(&for_another, |_| ());
    let plain = tcp(&broker_open, 0);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = silent.local_addr().unwrap();
    drop(silent);
    let [cafile, cert, key] = ["--cafile", "--cert", "--key"];
    let [ca, other, before] = [&ca, &other, &before].map(|path| text(path));
    let of = |files: &Files| [files.certificate.clone(), files.key.clone()];
    let [[ours, ours_key], [strange, strange_key], [old, old_key]] =
        [of(&ours), of(&strange), of(&old)];
    for (address, arguments, expected) in [
        (open, vec![], "speaks TLS: add --cafile"),
        (
            open,
            vec![cafile, other],
            "is not signed by an authority in --cafile",
        ),
        (
            open,
            vec![cafile, before],
            "is not signed by an authority in --cafile",
        ),
        (
            named,
            vec![cafile, ca],
            "is for mqtt.example.org, and not for 127.0.0.1: ask for the host by a name that it \
             has, or add --insecure",
        ),
        (plain, vec![cafile, ca], "does the broker speak it there?"),
        (
            strict,
            vec![cafile, ca],
            "asks for a certificate of this client: add --cert and --key",
        ),
        (
            strict,
            vec![cafile, ca, cert, text(&strange), key, text(&strange_key)],
            "this client's certificate, --cert",
        ),
        (
            strict,
            vec![cafile, ca, cert, text(&old), key, text(&old_key)],
            "expired ",
        ),
        (
            strict,
            vec![cafile, ca, cert, text(&ours), key, text(&strange_key)],
            "does not fit the certificate",
        ),
        (
            open,
            vec![cafile, "/there/is/no.pem"],
            "cannot read the certificate /there/is/no.pem",
        ),
        (
            open,
            vec![cafile, text(&ours_key)],
            "-----BEGIN CERTIFICATE-----",
        ),
        (nobody, vec![cafile, ca], "Connection refused"),
    ] {
        let port = address.port().to_string();
        let command = ["pub", "-h", "127.0.0.1", "-p", &port, "-t", "t", "-n"];
        let (code, _, complaint) = run(&[&command, &arguments[..]].concat());
        let expected_code = if address == nobody { 5 } else { 1 };
        assert_eq!(code, Some(expected_code), "{arguments:?}: {complaint}");
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
        assert!(!complaint.contains("-V 3.1.1"), "{complaint}");
    }
    // Only the name is not looked at.
    for (arguments, is_let_in) in [([cafile, ca], true), ([cafile, other], false)] {
        let port = named.port().to_string();
        let command = [
            "pub",
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-t",
            "t",
            "-n",
            "--insecure",
        ];
        let (code, _, complaint) = run(&[&command, &arguments[..]].concat());
        assert_eq!(code == Some(0), is_let_in, "{complaint}");
    }
}
