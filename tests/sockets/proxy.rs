//! PROXY headers, by hand and by HAProxy.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rotamq::config::Listener;

use crate::certificates::Authority;
use crate::clients::{Version, broker_with, mosquitto_command};
use crate::process::{Killed, Program, file, free_port, rotamq};
use crate::raw::{self, Raw};
use crate::tls::tcp;
use crate::wait::until;

/// A header of version 2: command, family, addresses and values.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let len = (rest.len() as u16).to_be_bytes();
    [
        &b"\r\n\r\n\0\r\nQUIT\n"[..],
        &[0x20 | command, family],
        &len,
        rest,
    ]
    .concat()
}

/// 192.0.2.7:4711 to 192.0.2.1:1883, and more.
fn ipv4(more: &[u8]) -> Vec<u8> {
    [
        &[192, 0, 2, 7, 192, 0, 2, 1, 0x12, 0x67, 0x07, 0x5B][..],
        more,
    ]
    .concat()
}

fn ipv6() -> Vec<u8> {
    let address: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    [
        &address.octets()[..],
        &address.octets(),
        &[0x12, 0x67, 0x07, 0x5B],
    ]
    .concat()
}

/// What is before CONNECT, and who the client is then; `None`: the proxy itself.
fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let text = |text: &str| format!("PROXY {text}\r\n").into_bytes();
    vec![
        (
            text("TCP4 192.0.2.7 192.0.2.1 4711 1883"),
            Some("192.0.2.7:4711"),
        ),
        (
            text("TCP6 2001:db8::7 2001:db8::1 4711 1883"),
            Some("[2001:db8::7]:4711"),
        ),
        (text("UNKNOWN"), None),
        (text("UNKNOWN ffff::1 nonsense"), None),
        (binary(1, 0x11, &ipv4(&[])), Some("192.0.2.7:4711")),
        (
            binary(1, 0x11, &ipv4(&[0x04, 0, 3, 1, 2, 3, 0x20, 0, 0])),
            Some("192.0.2.7:4711"),
        ),
        // Longer than one look at what has come.
        (
            binary(1, 0x11, &ipv4(&[&[0xE0, 7, 208][..], &[7; 2000]].concat())),
            Some("192.0.2.7:4711"),
        ),
        (binary(1, 0x21, &ipv6()), Some("[2001:db8::7]:4711")),
        (binary(1, 0x31, &[b'/'; 216]), None),
        (binary(1, 0x00, &[]), None),
        (binary(0, 0x00, &[]), None),
        (binary(0, 0x11, &ipv4(&[])), None),
    ]
}

/// In pieces of `len`.
fn send(client: &mut Raw, bytes: &[u8], len: usize) {
    for piece in bytes.chunks(len) {
        // The broker may have closed before the last.
        if std::io::Write::write_all(&mut client.stream, piece).is_err() {
            return;
        }
    }
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let path = file(
        "proxy.toml",
        "[[listener]]\naddress = '127.0.0.1:0'\nproxy_trusted = ['127.0.0.0/8']\n[log]\nlevel = 'debug'\n",
    );
    let arguments = ["--ephemeral", "--config", path.to_str().unwrap()];
    let mut program = Program::start(&mut rotamq(&arguments), "listening on ");
    for (header, expected) in headers() {
        for len in [1, 7, usize::MAX] {
            let mut client = Raw::open(program.address);
            let own = client.stream.local_addr().unwrap().to_string();
            let connect = raw::connect(Version::V311, "proxied", true, 0);
            send(&mut client, &[header.clone(), connect].concat(), len);
            assert_eq!(client.packet(), [0x20, 2, 0, 0], "{header:?}");
            let line = program.line("connected");
            let peer = format!("peer={} ", expected.unwrap_or(&own));
            assert!(line.contains(&peer), "{line}");
        }
    }
}

/// J16: what is malformed is closed, and nothing of it gets anywhere.
#[test]
fn malformed_headers_are_closed() {
    let broker = broker_with(|config| {
        config.listeners[0].proxy_trusted = vec!["127.0.0.1".parse().unwrap()];
    });
    let text = |text: &str| format!("PROXY {text}\r\n").into_bytes();
    let long = format!("UNKNOWN {}", "x".repeat(107));
    let mut version_1 = binary(1, 0x11, &ipv4(&[]));
    version_1[12] = 0x11;
    for header in [
        Vec::new(),
        b"proxy TCP4 192.0.2.7 192.0.2.1 4711 1883\r\n".to_vec(),
        text("TCP4 192.0.2.7 192.0.2.1 4711"),
        text("TCP4 192.0.2.7  192.0.2.1 4711 1883"),
        text("TCP4 192.0.2.7 192.0.2.1 4711 1883 "),
        text("TCP4 192.0.2.256 192.0.2.1 4711 1883"),
        text("TCP4 192.0.2.07 192.0.2.1 4711 1883"),
        text("TCP4 192.0.2.7 192.0.2.1 65536 1883"),
        text("TCP4 192.0.2.7 192.0.2.1 +1 1883"),
        text("TCP4 2001:db8::7 2001:db8::1 4711 1883"),
        text("TCP5 192.0.2.7 192.0.2.1 4711 1883"),
        text("TCP4 192.0.2.7\n 192.0.2.1 4711 1883"),
        text("TCP4 \u{1b}[31m 192.0.2.1 4711 1883"),
        text(&long),
        version_1,
        binary(2, 0x11, &ipv4(&[])),
        binary(1, 0x12, &ipv4(&[])),
        binary(1, 0x11, &ipv4(&[])[..11]),
        binary(1, 0x11, &ipv4(&[0x04])),
        binary(1, 0x11, &ipv4(&[0x04, 0, 1])),
        binary(1, 0x11, &ipv4(&[0x04, 0xFF, 0xFF, 0])),
        binary(1, 0x21, &ipv4(&[])),
        binary(1, 0x11, &[0; 4081]),
    ] {
        for len in [1, usize::MAX] {
            let mut client = Raw::open(broker.address());
            let connect = raw::connect(Version::V311, "malformed", true, 0);
            send(&mut client, &[header.clone(), connect].concat(), len);
            assert!(client.until_closed().is_empty(), "{header:?}");
        }
    }
    until("they are gone", || broker.connections_len() == 0);
    assert_eq!(broker.sessions_len(), 0);
}

/// J17: only from networks that are trusted; from elsewhere nobody is believed,
/// and clients connect as ever.
#[test]
fn others_are_not_believed() {
    let broker = broker_with(|config| {
        config.listeners[0].proxy_trusted = vec!["192.0.2.0/24".parse().unwrap()];
        config
            .listeners
            .push(Listener::new("127.0.0.1:0".parse().unwrap()));
    });
    let addresses: [SocketAddr; 2] = [tcp(&broker, 0), tcp(&broker, 1)];
    for address in addresses {
        for (header, _) in headers() {
            let mut client = Raw::open(address);
            let connect = raw::connect(Version::V311, "spoofing", true, 0);
            send(&mut client, &[header, connect].concat(), usize::MAX);
            assert!(client.until_closed().is_empty());
        }
        Raw::connect(address, Version::V311, "as ever");
    }
}

/// B05: a header that does not come has no more time than a CONNECT.
#[test]
fn a_header_has_to_come_in_time() {
    let broker = broker_with(|config| {
        config.limits.connect_timeout = Duration::from_millis(300);
        config.listeners[0].proxy_trusted = vec!["127.0.0.1".parse().unwrap()];
    });
    for (header, _) in headers() {
        let mut client = Raw::open(broker.address());
        client.send(&header[..header.len() - 1]);
        assert!(client.until_closed().is_empty());
        let mut client = Raw::open(broker.address());
        client.send(&header);
        assert!(client.until_closed().is_empty());
    }
}

/// HAProxy in front, with version 2 of the header: as a TCP proxy, and where it
/// ends TLS itself.
#[test]
fn behind_haproxy_clients_are_who_they_are() {
    let authority = Authority::new("haproxy");
    let server = authority.server("server");
    let (plain, secure) = (free_port(), free_port());
    let mut program = {
        let config = "[[listener]]\naddress = '127.0.0.1:0'\nproxy_trusted = ['127.0.0.1']\n";
        let config = file("haproxy.toml", config);
        let arguments = ["--ephemeral", "--log-level", "debug", "--config"];
        let mut command = rotamq(&arguments);
        Program::start(command.arg(config), "listening on ")
    };
    // HAProxy wants certificate and key in one file.
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    let both = read(&server.certificate) + &read(&server.key);
    let both = file("haproxy.pem", &both);
    let config = format!(
        "global\n    maxconn 100\ndefaults\n    mode tcp\n    timeout connect 10s\n    \
         timeout client 60s\n    timeout server 60s\n\
         frontend mqtt\n    bind 127.0.0.1:{plain}\n    default_backend rotamq\n\
         frontend mqtts\n    bind 127.0.0.1:{secure} ssl crt {}\n    default_backend rotamq\n\
         backend rotamq\n    server one {} send-proxy-v2\n",
        both.display(),
        program.address
    );
    let config = file("haproxy.cfg", &config);
    let mut haproxy = Command::new("/usr/sbin/haproxy");
    let haproxy = haproxy.arg("-db").arg("-f").arg(config).spawn();
    let _haproxy = Killed(haproxy.expect("tests/run installs HAProxy"));
    for (port, ca) in [(plain, None), (secure, Some(authority.ca()))] {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        until("HAProxy listens", || TcpStream::connect(address).is_ok());
        // HAProxy's own connections come from another address.
        let client = ["-t", "t", "-m", "m", "-q", "1", "-A", "127.0.0.7"];
        for (version, name) in [(Version::V311, "old"), (Version::V5, "new")] {
            let id = format!("{name}-at-{port}");
            let mut command = mosquitto_command("mosquitto_pub", version, address);
            command.args(client).args(["-i", &id]);
            if let Some(ca) = &ca {
                command.arg("--cafile").arg(ca);
            }
            let said = command.output().unwrap();
            assert!(said.status.success(), "{said:?}");
            let line = program.line(&format!("client={id:?}"));
            assert!(line.contains("connected peer=127.0.0.7:"), "{line}");
        }
    }
}
