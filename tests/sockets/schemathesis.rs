//! The API against its own description: schemathesis makes requests of it, right
//! and wrong ones, and looks whether the answers are what it says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::clients::http::Http;
use crate::clients::{Options, PAHO, PAHO_5, broker_with};

/// For each operation. Enough for each of its parameters to be wrong once.
const EXAMPLES_MAX: &str = "12";

/// What is the same in every run.
const SEED: &str = "1";

/// What it is to know beside the description.
const SETTINGS: &str = r#"
# What no schema can say: that a topic has no wildcards, or that something is there.
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 401, 403, 404, 409, 422, 507]
"#;

/// What never ends by itself, or would end the test: streams of events, and the
/// tokens and users of who asks.
const LEFT_OUT: &str = "^/api/v1/(events|log/events|logout|setup|tokens/.*|users/.*)$";

#[test]
fn the_api_is_what_its_description_says() {
    let python = Path::new(env!("CARGO_TARGET_TMPDIR")).join("python/bin/python");
    assert!(
        python.exists(),
        "{} does not exist: use tests/run, which installs schemathesis there",
        python.display()
    );
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let settings = folder.join("schemathesis.toml");
    fs::write(&settings, SETTINGS).unwrap();
    let broker = broker_with(|config| {
        config.http.address = Some("127.0.0.1:0".parse().unwrap());
        config.store.ephemeral = false;
        config.store.data = folder.join("data");
    });
    // There is something of everything.
    let mut device = PAHO_5.open(Options::persistent(broker.address(), "device").manual());
    device.subscribe(&["t/#", "$queue/jobs", "$share/g/t"], 1);
    device.publish("t/kept", b"\xff", 1, true);
    PAHO.publish(broker.address(), "$queue/jobs", "job", 1, false);
    let http = Http::of(&broker);
    http.post("/api/v1/bans", &json!({ "client": "eve", "seconds": 600 }))
        .ok();
    let token = broker.http_token().expect("it lends one");
    let url = format!("http://{}", http.address);
    let output = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&settings)
        .args(["run", &format!("{url}/api/v1/openapi.json")])
        .args([
            "--url",
            &url,
            "--header",
            &format!("Authorization: Bearer {token}"),
        ])
        .args(["--exclude-path-regex", LEFT_OUT])
        .args(["--phases", "examples,coverage,fuzzing", "--checks", "all"])
        .args(["--max-examples", EXAMPLES_MAX, "--seed", SEED])
        .args([
            "--request-timeout",
            "10",
            "--continue-on-failure",
            "--no-color",
        ])
        .args(["--warnings", "off", "--generation-database", "none"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaints}");
    assert_eq!(http.get("/ready").ok()["ready"], true);
}
