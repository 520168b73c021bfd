//! `$SYS` as mosquitto's client sees it, and as mosquitto itself has it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::clients::{Version, broker_with, mosquitto_command};
use crate::process::{Killed, file, free_port};
use crate::raw::Raw;
use crate::wait::until;

/// What is retained below `$SYS/`, by topic. Ends with the first value that is
/// live, as there is one a second.
fn retained(address: SocketAddr) -> BTreeMap<String, String> {
    let mut command = mosquitto_command("mosquitto_sub", Version::V311, address);
    command.args(["-t", "$SYS/#", "--retained-only", "-F", "%t\t%p"]);
    let said = command.output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let said = String::from_utf8(said.stdout).unwrap();
    let lines = said.lines().filter_map(|line| line.split_once('\t'));
    lines
        .map(|(topic, value)| (topic.to_owned(), value.to_owned()))
        .collect()
}

/// Publishes five messages of ten bytes, and keeps one connection.
fn load(address: SocketAddr) -> Raw {
    let mut command = mosquitto_command("mosquitto_pub", Version::V311, address);
    command.args(["-t", "t", "-q", "1", "-m", "0123456789", "--repeat", "5"]);
    assert!(command.status().unwrap().success());
    Raw::connect(address, Version::V311, "stays")
}

/// Dashboards that were made for mosquitto find all that they look for.
#[test]
fn every_topic_of_mosquittos_is_there_and_means_the_same() {
    let port = free_port();
    let config = format!("listener {port} 127.0.0.1\nallow_anonymous true\nsys_interval 1\n");
    let config = file("sys-mosquitto.conf", &config);
    let mut mosquitto = Command::new("/usr/sbin/mosquitto");
    let mosquitto = mosquitto.arg("-c").arg(config).stderr(Stdio::null());
    let _mosquitto = Killed(mosquitto.spawn().expect("tests/run installs mosquitto"));
    let theirs = SocketAddr::from(([127, 0, 0, 1], port));
    until("mosquitto listens", || TcpStream::connect(theirs).is_ok());
    let broker = broker_with(|config| config.sys.interval = Duration::from_secs(1));
    let ours = broker.address();
    let _clients = [load(theirs), load(ours)];
    // What the load came to; subscribers to $SYS change the rest.
    let same = [
        ("$SYS/broker/publish/messages/received", "5"),
        ("$SYS/broker/publish/bytes/received", "50"),
        ("$SYS/broker/clients/disconnected", "0"),
        ("$SYS/broker/shared_subscriptions/count", "0"),
        ("$SYS/broker/publish/messages/dropped", "0"),
    ];
    for address in [theirs, ours] {
        let mut found = BTreeMap::new();
        until("the values of the load are there", || {
            found = retained(address);
            // What is not said is as at the start.
            same.iter()
                .all(|(topic, value)| found.get(*topic).map_or("0", String::as_str) == *value)
        });
        let uptime = &found["$SYS/broker/uptime"];
        assert!(uptime.ends_with(" seconds"), "{uptime}");
        let version = &found["$SYS/broker/version"];
        assert!(version.contains(" version "), "{version}");
    }
    let (theirs, ours) = (retained(theirs), retained(ours));
    assert!(theirs.len() > 40, "{theirs:?}");
    for (topic, value) in &theirs {
        let our = ours.get(topic);
        let our = our.unwrap_or_else(|| panic!("{topic} is missing"));
        // A whole number stays one, and what has a fraction has one.
        let kind = |value: &str| value.parse::<f64>().map(|_| value.contains('.')).ok();
        assert_eq!(kind(our), kind(value), "{topic}: {our}, {value}");
    }
}

/// Who may not read it does not.
#[test]
fn rules_say_who_may_read_it() {
    let acl = file(
        "sys.acl",
        "topic read $SYS/broker/uptime\ntopic readwrite other/#\n",
    );
    let broker = broker_with(|config| {
        config.sys.interval = Duration::from_secs(1);
        config.access.acl_file = Some(acl);
    });
    let mut command = mosquitto_command("mosquitto_sub", Version::V311, broker.address());
    command.args(["-t", "$SYS/#", "-C", "3", "-W", "60", "-F", "%t"]);
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert_eq!(said, "$SYS/broker/uptime\n".repeat(3));
}
