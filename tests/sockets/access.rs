//! Access rules in files, with mosquitto's clients: who may what, rules that
//! change while the broker runs, and what decides.

use std::process::Command;

use rustix::process::Signal;

use crate::process::{Program, file, output};

const ACL: &str = "topic read news/#\nuser ann\ntopic readwrite home/#\npattern write sensors/%c\n";

/// Whether mosquitto_pub is told that its message was taken.
fn is_taken(program: &Program, client: &str, topic: &str) -> bool {
    let (host, port) = (program.address.ip().to_string(), program.address.port());
    let mut command = Command::new("mosquitto_pub");
    let output = command
        .args(["-h", &host, "-p", &port.to_string(), "-V", "mqttv5"])
        .args(["-q", "1", "-i", client, "-t", topic, "-m", "m"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    output.status.success() && !said.contains("Not authorized")
}

/// E05: rules that are wrong change nothing.
#[test]
fn rules_hold_are_read_again_and_say_what_decided() {
    let acl = file("rights.acl", ACL);
    let config = file(
        "rights.toml",
        &format!("allow_anonymous = true\n[access]\nacl_file = {acl:?}\n"),
    );
    let mut program = Program::serve(&["--config", config.to_str().unwrap()]);
    assert!(is_taken(&program, "c1", "sensors/c1"));
    assert!(!is_taken(&program, "c1", "sensors/c2"));
    let line = program.line("PUBLISH denied");
    assert!(line.contains("no rule allows it"), "{line}");
    std::fs::write(&acl, "topic write sensors/c2\ntopic sometimes x\n").unwrap();
    program.signal(Signal::HUP);
    let line = program.line("the access rules stay as they were");
    assert!(line.contains("rights.acl:2"), "{line}");
    assert!(is_taken(&program, "c1", "sensors/c1"));
    std::fs::write(&acl, "topic write sensors/c2\n").unwrap();
    program.signal(Signal::HUP);
    program.line("the access rules were read again");
    assert!(is_taken(&program, "c1", "sensors/c2"));
    assert!(!is_taken(&program, "c1", "sensors/c1"));
}

#[test]
fn what_decides_is_told_without_a_broker() {
    let acl = file("explained.acl", ACL);
    let explain = |arguments: &[&str]| {
        let mut all = vec!["access", "explain"];
        all.extend(arguments);
        all.extend(["--acl", acl.to_str().unwrap()]);
        let output = output(&all);
        let said = String::from_utf8(output.stdout).unwrap();
        (
            output.status.code(),
            said.trim_end().replace(acl.to_str().unwrap(), "acl"),
        )
    };
    for (arguments, code, said) in [
        (
            ["ann", "c", "publish", "home/x"],
            0,
            "allowed by acl:3: topic readwrite home/#",
        ),
        (
            ["ann", "c", "publish", "news/x"],
            1,
            "denied: no rule allows it",
        ),
        (
            ["", "c", "subscribe", "news/+"],
            0,
            "allowed by acl:1: topic read news/#",
        ),
        (
            ["", "c1", "publish", "sensors/c1"],
            0,
            "allowed by acl:4: pattern write sensors/%c",
        ),
    ] {
        assert_eq!(
            explain(&arguments),
            (Some(code), said.to_owned()),
            "{arguments:?}"
        );
    }
    let wrong = file("wrong.acl", "topic sometimes x\n");
    let output = output(&["access", "check", "--acl", wrong.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success() && said.contains("wrong.acl:1"),
        "{said}"
    );
}
