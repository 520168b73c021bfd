//! Users and their passwords, with mosquitto's clients and files.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rotamq::config::Config;
use rotamq::{Broker, base64};
use rustix::process::Signal;

use crate::process::{Program, file};
use crate::raw::Raw;
use crate::wait::until;

/// Written by mosquitto_passwd: ann has "ann's secret", ben "b€n".
const MOSQUITTOS: &str = include_str!("../fixtures/mosquitto_passwd");

/// So many passes that nobody waits for them.
const SLOW: &str = "slow:$argon2id$v=19$m=65536,t=24,p=1$c29tZXNhbHQ$\
                    CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc\n";

/// mosquitto_pub with this name and password, if any.
fn publish(address: SocketAddr, version: &str, who: Option<(&str, &str)>) -> Output {
    let mut command = Command::new("mosquitto_pub");
    let port = address.port().to_string();
    command.args([
        "-h",
        "127.0.0.1",
        "-p",
        &port,
        "-V",
        version,
        "-t",
        "t",
        "-m",
        "m",
    ]);
    if let Some((user, password)) = who {
        command.args(["-u", user, "-P", password]);
    }
    command.output().unwrap()
}

fn is_let_in(address: SocketAddr, version: &str, who: Option<(&str, &str)>) -> bool {
    publish(address, version, who).status.success()
}

#[test]
fn mosquittos_clients_and_its_file() {
    let passwords = file("mosquittos.passwd", MOSQUITTOS);
    let config = file(
        "mosquittos.toml",
        &format!("[authentication]\npassword_file = {passwords:?}\n[log]\nlevel = 'trace'\n"),
    );
    let mut program = Program::serve(&["--config", config.to_str().unwrap()]);
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for (who, said) in [
            (Some(("ann", "ann's secret")), None),
            (Some(("ben", "b€n")), None),
            (Some(("ann", "canary")), Some("user name or password")),
            (Some(("nobody", "canary")), Some("user name or password")),
            (None, Some("not authori")),
        ] {
            let output = publish(program.address, version, who);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.success(), said.is_none(), "{who:?}: {stderr}");
            let said = said.unwrap_or_default();
            assert!(
                stderr.to_lowercase().contains(said),
                "{version} {who:?}: {stderr}"
            );
        }
    }
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    // L07: a password is nowhere, nor is a hash.
    for line in program.rest_of_log() {
        for secret in ["canary", "ann's secret", "piEtkLi/", "Xfjrew0"] {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[test]
fn the_file_is_read_again_when_the_broker_is_told_to() {
    let mut lines = MOSQUITTOS.lines().map(|line| format!("{line}\n"));
    let (_, ann, ben) = (lines.next(), lines.next().unwrap(), lines.next().unwrap());
    let path = file("changing.passwd", &ann);
    let mut command = crate::process::rotamq(&["--ephemeral", "--listen", "127.0.0.1:0"]);
    command.env("ROTAMQ_AUTHENTICATION__PASSWORD_FILE", &path);
    let mut program = Program::start(&mut command, "listening on ");
    let address = program.address;
    let known = || {
        [("ann", "ann's secret"), ("ben", "b€n")]
            .map(|who| is_let_in(address, "mqttv311", Some(who)))
    };
    assert_eq!(known(), [true, false]);
    let mut reload = |text: &str, said: &str| {
        std::fs::write(&path, text).unwrap();
        program.signal(Signal::HUP);
        program.line(said)
    };
    reload(&ben, "the password file was read again");
    assert_eq!(known(), [false, true]);
    // E05: with what is wrong nobody is let in, nor shut out.
    let line = reload("ann:canary\n", "the password file stays as it was: ");
    assert!(line.contains(":1: the password has to be hashed"), "{line}");
    assert!(!line.contains("canary"), "{line}");
    assert_eq!(known(), [false, true]);
}

fn broker(passwords: &Path, configure: impl FnOnce(&mut Config)) -> Broker {
    let mut config = Config::default();
    config.http.address = None;
    config.listeners[0].address = "127.0.0.1:0".parse().unwrap();
    config.store.ephemeral = true;
    config.authentication.password_file = Some(passwords.into());
    configure(&mut config);
    Broker::start(config).unwrap()
}

/// CONNECT of a 3.1.1 client with this one letter for an identifier.
fn connect(id: u8, user: &str) -> Vec<u8> {
    let mut bytes = b"\x10\x00\x00\x04MQTT\x04\xc2\x00\x00\x00\x01".to_vec();
    bytes.push(id);
    for field in [user, "guess"] {
        bytes.extend([0, field.len() as u8]);
        bytes.extend(field.as_bytes());
    }
    bytes[1] = bytes.len() as u8 - 2;
    bytes
}

/// A check that takes long holds up nobody else, and is over with its client.
/// Case C56 of docs/security.md.
#[test]
fn who_is_slow_to_be_checked_holds_up_nobody() {
    let broker = broker(&file("slow.passwd", SLOW), |config| {
        config.allow_anonymous = true;
        config.authentication.hashing_threads = 1;
        config.authentication.hashing_waiting_max = 1;
    });
    let mut asked = Raw::open(broker.address());
    asked.send(&connect(b'a', "slow"));
    asked.send(b"\xc0\x00"); // sent behind it, and not lost
    // One is checked, one waits.
    until("both are busy", || {
        let mut other = Raw::open(broker.address());
        other.send(&connect(b'b', "slow"));
        broker.counts().refused_busy > 0 || {
            drop(other);
            assert!(is_let_in(broker.address(), "mqttv311", None));
            false
        }
    });
    // Whoever leaves meanwhile is gone.
    until("all others are gone", || broker.connections_len() <= 1);
    // It may have come after two of the others.
    let connack = asked.packet();
    assert!(matches!(connack[..], [0x20, 2, 0, 3 | 4]), "{connack:x?}");
    assert_eq!(asked.read(), None);
    assert_eq!(broker.sessions_len(), 0);
    broker.stop();
}

#[test]
fn being_checked_counts_for_the_deadline() {
    let broker = broker(&file("deadline.passwd", SLOW), |config| {
        config.allow_anonymous = false;
        config.limits.connect_timeout = Duration::from_millis(100);
    });
    let mut asked = Raw::open(broker.address());
    asked.send(&connect(b'a', "slow"));
    assert_eq!(asked.read(), None);
    assert_eq!(broker.counts().refused_unknown, 0);
    until("it is gone", || broker.connections_len() == 0);
    broker.stop();
}

/// Whoever guesses is not asked any more, whatever is guessed.
/// Case C56 of docs/security.md.
#[test]
fn who_fails_too_often_is_banned() {
    let broker = broker(&file("banned.passwd", MOSQUITTOS), |config| {
        config.authentication.ban.failures_per_address_max = 3;
    });
    let address = broker.address();
    let right = Some(("ann", "ann's secret"));
    for _ in 0..2 {
        assert!(!is_let_in(address, "mqttv311", Some(("ann", "guess"))));
        assert!(is_let_in(address, "mqttv311", right));
    }
    assert_eq!(broker.counts().bans, 0);
    assert!(!is_let_in(address, "mqttv311", Some(("nobody", "guess"))));
    for (version, said) in [("mqttv311", "not authorised"), ("mqttv5", "Banned")] {
        let stderr = String::from_utf8(publish(address, version, right).stderr).unwrap();
        assert!(stderr.contains(said), "{stderr}");
    }
    let counts = broker.counts();
    assert_eq!(
        (counts.bans, counts.refused_unknown, counts.refused_banned),
        (1, 3, 2)
    );
    assert_eq!(counts.connections_refused, 5);
    broker.stop();
}

/// `rotamq passwd` with these arguments, and that on standard input.
fn passwd(arguments: &[&str], input: &str) -> Output {
    let mut command = crate::process::rotamq(&["passwd"]);
    let piped = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
    let [stdin, stdout, stderr] = piped;
    command
        .args(arguments)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().expect("it is piped");
    // Who refuses its arguments reads nothing.
    _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn succeeds(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn passwd_adds_changes_and_removes() {
    let path = file("written.passwd", "");
    std::fs::remove_file(&path).unwrap();
    let name = path.to_str().unwrap();
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    succeeds(&passwd(&[name, "ann"], "first\n"));
    assert_eq!(mode(), 0o600);
    let line = std::fs::read_to_string(&path).unwrap();
    assert!(
        line.starts_with("ann:$argon2id$v=19$m=19456,t=2,p=1$"),
        "{line}"
    );
    std::fs::write(
        &path,
        format!("# ours\n{line}\n{}", MOSQUITTOS.replace("ann:", "old:")),
    )
    .unwrap();
    succeeds(&passwd(&[name, "ann"], "second\nfirst\n"));
    succeeds(&passwd(&[name, "cid", "--scram"], "third"));
    succeeds(&passwd(&[name, "old", "--remove"], ""));
    let text = std::fs::read_to_string(&path).unwrap();
    let starts: Vec<&str> = text
        .lines()
        .map(|line| line.get(..5).unwrap_or(line))
        .collect();
    assert_eq!(starts, ["# our", "ann:$", "", "# Wri", "ben:$", "cid:S"]);
    assert!(!text.contains(line.trim_end()));
    let broker = broker(&path, |_| ());
    for (who, is_known) in [
        (("ann", "second"), true),
        (("ann", "first"), false),
        (("ben", "b€n"), true),
        (("cid", "third"), true),
        (("old", "ann's secret"), false),
    ] {
        assert_eq!(
            is_let_in(broker.address(), "mqttv311", Some(who)),
            is_known,
            "{who:?}"
        );
    }
    broker.stop();
}

#[test]
fn passwd_refuses_what_cannot_be_meant() {
    let path = file("refused.passwd", MOSQUITTOS);
    let broken = file("broken.passwd", "# mine\nann\n");
    let (name, broken) = (path.to_str().unwrap(), broken.to_str().unwrap());
    for (arguments, input, said) in [
        // M05: nothing is made that is called like a user.
        (
            &["ann", name][..],
            "x\n",
            "the order is rotamq passwd FILE USER",
        ),
        (
            &["ann", "/no/such/file"],
            "x\n",
            "the order is rotamq passwd FILE USER",
        ),
        (&[name, "ann", "canary"], "x\n", "unexpected argument"),
        (&[name, "a:b"], "x\n", "cannot begin with #, nor have a :"),
        (&[name, "ann"], "\n", "the password is empty"),
        (&[name, "ann"], "", "the password is empty"),
        (&[name, "ann", "--scram"], "é\n", "printable ASCII"),
        (&[name, "cid", "--remove"], "", "has no user \"cid\""),
        (
            &["/no/such/file", "ann", "--remove"],
            "",
            "cannot read /no/such/file",
        ),
        (
            &[broken, "ben"],
            "x\n",
            "broken.passwd:2: has to be USER:HASH",
        ),
    ] {
        let output = passwd(arguments, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), MOSQUITTOS);
    assert!(!Path::new("ann").exists());
    // Two at a time do not undo each other's work.
    let other = file("refused.passwd.new", "");
    let output = passwd(&[name, "ann"], "x\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("another rotamq passwd is at work"),
        "{stderr}"
    );
    std::fs::remove_file(other).unwrap();
}

/// What a client that knows the password says to the question (RFC 5802, 3).
fn proof(password: &str, client_first_bare: &str, question: &str) -> (String, Vec<u8>) {
    use aws_lc_rs::{digest, hmac, pbkdf2};
    let fields: Vec<&str> = question.split(',').map(|field| &field[2..]).collect();
    let [nonce, salt, iterations] = fields[..] else {
        panic!("{question}")
    };
    let salt = base64::decode(salt).unwrap();
    let mut salted = [0; 32];
    let iterations = iterations.parse().unwrap();
    let password = password.as_bytes();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        &salt,
        password,
        &mut salted,
    );
    let hmac = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let client_key = hmac(&salted, "Client Key");
    let stored_key = digest::digest(&digest::SHA256, &client_key);
    let without_proof = format!("c=biws,r={nonce}");
    let said = format!("{client_first_bare},{question},{without_proof}");
    let signature = hmac(stored_key.as_ref(), &said);
    let proof: Vec<u8> = client_key
        .iter()
        .zip(signature)
        .map(|(a, b)| a ^ b)
        .collect();
    let proof = format!("{without_proof},p={}", base64::encode(&proof));
    (proof, hmac(&hmac(&salted, "Server Key"), &said))
}

#[test]
fn scram_by_a_line_that_passwd_has_written() {
    let path = file("scram.passwd", "");
    let name = path.to_str().unwrap();
    succeeds(&passwd(
        &[name, "ann", "--scram", "--iterations", "4096"],
        "pencil",
    ));
    let broker = broker(&path, |config| config.allow_anonymous = false);
    for (user, password, is_known) in [
        ("ann", "pencil", true),
        ("ann", "pen", false),
        ("ben", "pencil", false),
    ] {
        let mut raw = Raw::open(broker.address());
        let bare = format!("n={user},r=nonce");
        let first = format!("n,,{bare}");
        raw.send(&with_properties(
            b"\x10",
            b"\x00\x04MQTT\x05\x02\x00\x00",
            first.as_bytes(),
            b"\x00\x01c",
        ));
        let question = authentication_data(&raw.packet());
        let (answer, signature) = proof(password, &bare, &question);
        raw.send(&with_properties(b"\xf0", b"\x18", answer.as_bytes(), b""));
        let connack = raw.packet();
        if is_known {
            assert_eq!((connack[0], connack[3]), (0x20, 0));
            let expected = format!("v={}", base64::encode(&signature));
            assert_eq!(authentication_data(&connack), expected);
        } else {
            assert_eq!((connack[0], connack[3]), (0x20, 0x87));
            assert_eq!(raw.read(), None);
        }
    }
    broker.stop();
}

/// A packet whose properties are the method and these data.
fn with_properties(kind: &[u8], before: &[u8], data: &[u8], after: &[u8]) -> Vec<u8> {
    let method = b"\x15\x00\x0dSCRAM-SHA-256\x16";
    let len = u8::try_from(method.len() + 2 + data.len()).expect("it is short");
    let mut body = before.to_vec();
    // A length from 128 on takes two bytes.
    let varint = |len: u8| match len {
        0..128 => vec![len],
        _ => vec![len, 1],
    };
    body.extend(varint(len));
    body.extend(method);
    body.extend([0, data.len() as u8]);
    body.extend(data);
    body.extend(after);
    let len = u8::try_from(body.len()).expect("it is short");
    [kind, &varint(len), &body].concat()
}

/// What stands behind the method in a packet of at most 255 bytes.
fn authentication_data(packet: &[u8]) -> String {
    let method = b"SCRAM-SHA-256\x16";
    let at = packet
        .windows(method.len())
        .position(|window| window == method);
    let data = &packet[at.expect("the method is named") + method.len()..];
    let len = usize::from(data[1]);
    String::from_utf8(data[2..2 + len].to_vec()).unwrap()
}
