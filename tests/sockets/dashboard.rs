//! The dashboard, in headless Chromium, on a broker under load: every page, every
//! action, each role.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::clients::{Version, mosquitto_command};
use crate::process::{Killed, Program, file, rotamq};

const MODULES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/node/node_modules");
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/sockets/clients/dashboard.cjs"
);
const VENDOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/dashboard/vendor");

/// What of the dashboard is others', and where in their packages it stands.
const VENDORED: [(&str, &str, &str); 5] = [
    ("uPlot.esm.js", "uplot", "dist/uPlot.esm.js"),
    ("uPlot.min.css", "uplot", "dist/uPlot.min.css"),
    ("LICENSE.uPlot", "uplot", "LICENSE"),
    ("mqtt.esm.js", "mqtt", "dist/mqtt.esm.js"),
    ("LICENSE.mqtt.md", "mqtt", "LICENSE.md"),
];

#[test]
fn what_is_not_ours_is_as_it_was_published() {
    for (package, version) in [("uplot", "1.6.32"), ("mqtt", "5.16.0")] {
        let about = std::fs::read_to_string(format!("{MODULES}/{package}/package.json"));
        let about = about.expect("tests/run installs it");
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        assert_eq!(about["version"], version, "{package}");
    }
    for (ours, package, theirs) in VENDORED {
        let ours = format!("{VENDOR}/{ours}");
        let theirs = format!("{MODULES}/{package}/{theirs}");
        assert!(
            std::fs::read(&ours).unwrap() == std::fs::read(&theirs).unwrap(),
            "{ours} is not {theirs}"
        );
    }
}

/// Where pictures of the pages go.
fn pictures() -> PathBuf {
    let folder = std::env::var_os("DASHBOARD_PICTURES").map(PathBuf::from);
    let folder =
        folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pictures"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Somebody who subscribes to a filter until the end.
fn subscriber(address: SocketAddr, client: &str, filter: &str) -> Killed {
    let mut command = mosquitto_command("mosquitto_sub", Version::V5, address);
    command.args(["-i", client, "-t", filter, "-q", "1"]);
    let child = command.stdout(Stdio::null()).spawn();
    Killed(child.expect("mosquitto_sub was found"))
}

/// Pairs of clients that send each other messages.
fn load(address: SocketAddr) -> Killed {
    let address = address.to_string();
    let mut command = rotamq(&[
        "bench",
        "pairs",
        "--pairs",
        "5",
        "--rate",
        "200",
        "--seconds",
        "600",
        "--address",
        &address,
    ]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Killed(child.unwrap())
}

#[test]
fn every_page_and_action_of_the_dashboard() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard-data");
    _ = std::fs::remove_dir_all(&folder);
    let settings = file("dashboard.toml", "[log]\nlevel = \"info\"\n");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--data",
        folder.to_str().unwrap(),
        "--config",
        settings.to_str().unwrap(),
    ];
    let mut broker = Program::start(&mut rotamq(&arguments), "listening on ");
    let line = broker.line("make the first admin at ");
    let (_, setup) = line.split_once("make the first admin at ").unwrap();
    let _load = load(broker.address);
    let _workers = ["worker-1", "worker-2"]
        .map(|worker| subscriber(broker.address, worker, "$queue/orders/new"));
    let _device = subscriber(broker.address, "sensor-7", "room/+/set");
    let output = Command::new("node")
        .arg(SCRIPT)
        .args([setup, &broker.address.to_string()])
        .arg(pictures())
        .env("NODE_PATH", MODULES)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    println!("{said}");
}
