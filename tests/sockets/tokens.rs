//! Users who bring a token: with mosquitto's clients, and keys of OpenSSL's.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use rotamq::base64;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::{Program, file};
use crate::raw::{self, Raw};

const SECRET: [u8; 32] = *b"a secret of thirty-two bytes, so";

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

pub fn url(bytes: &[u8]) -> String {
    let text = base64::encode(bytes).replace('+', "-").replace('/', "_");
    text.trim_end_matches('=').to_owned()
}

pub fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = header.to_string();
    let claims = claims.to_string();
    let signed = format!("{}.{}", url(header.as_bytes()), url(claims.as_bytes()));
    let signature = url(&sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

pub fn hs256(signed: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &SECRET);
    hmac::sign(&key, signed).as_ref().to_vec()
}

/// With the secret in it.
pub fn key_set() -> String {
    json!({"keys": [{"kty": "oct", "k": url(&SECRET)}]}).to_string()
}

/// With the secret in its key set, and more of a configuration.
fn serve(name: &str, more: &str) -> (Program, std::path::PathBuf) {
    let keys = file(&format!("{name}.keys.json"), &key_set());
    let config = file(
        &format!("{name}.toml"),
        &format!(
            "[authentication]\njwt_keys = {keys:?}\njwt_algorithms = ['HS256', 'EdDSA']\n{more}\n\
             [log]\nlevel = 'trace'\n"
        ),
    );
    let program = Program::serve(&["--config", config.to_str().unwrap()]);
    (program, keys)
}

fn publish(address: SocketAddr, version: &str, (user, token): (&str, &str)) -> Output {
    let port = address.port().to_string();
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &port, "-i", "c", "-V", version]);
    command.args(["-t", "t", "-m", "m", "-u", user, "-P", token]);
    command.output().unwrap()
}

#[test]
fn mosquittos_clients_with_tokens() {
    let (mut program, _) = serve("tokens", "jwt_client_claim = 'device'");
    let of = |claims: Value| token(&json!({"alg": "HS256"}), &claims, hs256);
    let end = now() + 3600;
    let right = of(json!({"sub": "ann", "exp": end}));
    let (two, _) = right.rsplit_once('.').unwrap();
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        for (user, token, is_let_in) in [
            ("ann", right.clone(), true),
            ("", right.clone(), true),
            (
                "ann",
                of(json!({"sub": "ann", "exp": end, "device": "c"})),
                true,
            ),
            (
                "ann",
                of(json!({"sub": "ann", "exp": end, "device": "d"})),
                false,
            ),
            ("ben", right.clone(), false),
            ("ann", of(json!({"sub": "ann", "exp": now() - 3600})), false),
            ("ann", of(json!({"sub": "ann"})), false),
            (
                "ann",
                token(
                    &json!({"alg": "none"}),
                    &json!({"sub": "ann", "exp": end}),
                    |_| vec![],
                ),
                false,
            ),
            ("ann", two.to_owned(), false),
            ("ann", "canary".to_owned(), false),
        ] {
            let output = publish(program.address, version, (user, &token));
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.success(), is_let_in, "{user} {token}: {said}");
        }
    }
    program.signal(Signal::TERM);
    assert!(program.wait().success());
    // L07: what lets somebody in is nowhere.
    let log = program.rest_of_log();
    assert!(
        log.iter()
            .any(|line| line.contains("the token has expired"))
    );
    for line in log {
        assert!(!line.contains(&right) && !line.contains(two), "{line}");
    }
}

fn sh(script: &str) -> Vec<u8> {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{script}: {said}");
    output.stdout
}

/// As docs/authentication.md has it: the key of OpenSSL's is put into the file
/// while the broker runs.
#[test]
fn a_key_of_openssls_that_comes_later() {
    let (mut program, keys) = serve("tokens_openssl", "");
    let address = program.address;
    let folder = keys.parent().unwrap().display();
    let public = sh(&format!(
        "cd {folder}; openssl genpkey -algorithm ed25519 -out issuer.pem
         openssl pkey -in issuer.pem -pubout -outform DER | tail -c 32 | basenc --base64url | tr -d '=\\n'"
    ));
    let x = String::from_utf8(public).unwrap();
    let claims = json!({"sub": "ann", "exp": now() + 3600});
    let signed = token(&json!({"alg": "EdDSA"}), &claims, |signed| {
        std::fs::write(keys.with_file_name("signed"), signed).unwrap();
        sh(&format!(
            "cd {folder}; openssl pkeyutl -sign -rawin -inkey issuer.pem -in signed"
        ))
    });
    let is_let_in = || {
        publish(address, "mqttv5", ("ann", &signed))
            .status
            .success()
    };
    assert!(!is_let_in());
    let mut reload = |set: &str, said: &str| {
        std::fs::write(&keys, set).unwrap();
        program.signal(Signal::HUP);
        program.line(said)
    };
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]});
    reload(&set.to_string(), "the keys of tokens were read again");
    assert!(is_let_in());
    // E05: with what is wrong all stays as it was.
    let line = reload("{canary}", "the keys of tokens stay as they were: ");
    assert!(line.contains(":1: has to be a JSON Web Key Set") && !line.contains("canary"));
    assert!(is_let_in());
}

/// Whether it came as password or by AUTH.
/// Case F50 of docs/security.md.
#[test]
fn the_connection_ends_with_the_token() {
    let (program, _) = serve("tokens_end", "jwt_leeway_secs = 0");
    let of = |secs: u64| {
        token(
            &json!({"alg": "HS256"}),
            &json!({"sub": "ann", "exp": now() + secs}),
            hs256,
        )
    };
    let with_password = |level: u8, properties: &[u8]| {
        let fields = [raw::text("ann"), raw::text(of(2))].concat();
        connect(level, 0xc2, properties, &fields)
    };
    // On a machine that is busy the token may be over before it is looked at.
    let let_in = |connect: &dyn Fn() -> Vec<u8>| {
        let mut tries = std::iter::repeat_with(|| {
            let mut raw = Raw::open(program.address);
            raw.send(&connect());
            let connack = raw.packet();
            (connack[3] == 0).then_some(raw)
        });
        tries
            .by_ref()
            .take(10)
            .flatten()
            .next()
            .expect("one is in time")
    };
    let mut old = let_in(&|| with_password(4, &[]));
    let mut new = let_in(&|| with_password(5, &[0]));
    let mut again = let_in(&|| connect(5, 0x02, &by_auth(&of(3600)), &[]));
    raw_auth(&mut again, &of(1));
    assert!(old.until_closed().is_empty());
    for raw in [&mut new, &mut again] {
        let last = raw.until_closed().pop().expect("it is told why");
        assert_eq!((last[0], last[2]), (0xe0, 0x87));
    }
    let mut stays = let_in(&|| connect(5, 0x02, &by_auth(&of(3600)), &[]));
    raw_auth(&mut stays, &of(3600));
    assert_eq!(stays.packet()[..3], [0xf0, 0x08, 0x00]);
}

/// The properties that have a token for the method JWT.
pub fn by_auth(token: &str) -> Vec<u8> {
    let named = [&[0x15][..], &raw::text("JWT"), &[0x16], &raw::text(token)].concat();
    // A packet is a first byte and then the same: a length, and so many bytes.
    raw::packet(0, &named).split_off(1)
}

/// Authenticates again.
fn raw_auth(raw: &mut Raw, token: &str) {
    let body = [vec![0x19], by_auth(token)].concat();
    raw.send(&raw::packet(0xf0, &body));
}

/// CONNECT of a client that leaves its identifier to the broker.
pub fn connect(level: u8, flags: u8, properties: &[u8], fields: &[u8]) -> Vec<u8> {
    let begin = [&raw::text("MQTT")[..], &[level, flags, 0, 0], properties].concat();
    raw::packet(0x10, &[&begin[..], &[0, 0], fields].concat())
}
