//! `rotamq store`, with the program that serves on the same folder.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use rustix::process::Signal;
use serde_json::Value;

use crate::clients::Version;
use crate::process::{Program, file, output, rotamq};
use crate::raw::{self, Raw};
use crate::wait::until;

/// Where nothing is yet, in the folder of this test run.
fn place(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let cleared = match path.is_dir() {
        true => fs::remove_dir_all(&path),
        false => fs::remove_file(&path),
    };
    match cleared {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => panic!("{error}"),
        _ => path,
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What it prints; it succeeds and complains of nothing.
fn succeeds(arguments: &[&str]) -> String {
    let output = output(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    assert_eq!(stderr, "", "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What it complains of, with exit code 1.
fn fails(arguments: &[&str]) -> String {
    let output = output(arguments);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("rotamq: "), "{stderr}");
    stderr
}

fn serve(data: &Path) -> Program {
    Program::serve(&["--data", text(data)])
}

fn stop(mut program: Program) {
    program.signal(Signal::TERM);
    assert_eq!(program.wait().code(), Some(0));
}

/// `rotamq sub` or `pub`, with arguments separated by blanks; what it prints.
fn client(program: &Program, command: &str, arguments: &str) -> String {
    let port = program.address.port().to_string();
    let mut all = vec![command, "-p", &port];
    all.extend(arguments.split_whitespace());
    succeeds(&all)
}

/// Names, content and times of all files.
fn state(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let files = entries.map(|path| {
        let changed = path.metadata().unwrap().modified().unwrap();
        (path.clone(), (fs::read(path).unwrap(), changed))
    });
    files.collect()
}

/// One session with a message that waits and one in flight, a queue with
/// three jobs, a retained message.
fn fill(program: &Program) {
    for (id, filter) in [("me", "a/#"), ("other", "a/+")] {
        let arguments = format!("-i {id} -c -x 100000 -t {filter} -q 2 -E");
        assert_eq!(client(program, "sub", &arguments), "");
    }
    client(
        program,
        "pub",
        "-t a/b -q 2 -m waits -D publish content-type text/x",
    );
    client(program, "pub", "-t r/1 -q 1 -r -m kept");
    client(program, "pub", "-t $queue/jobs -q 1 -m job --repeat 3");
    // PUBREC does not come from it.
    let mut mute = Raw::open(program.address);
    mute.send(&raw::connect(Version::V311, "mute", false, 0));
    mute.packet();
    mute.send(&raw::subscribe(1, "m", 2));
    mute.packet();
    mute.send(&raw::publish("m", b"in flight", 2, 9));
    let mut got = vec![mute.packet()[0] & 0xF0, mute.packet()[0] & 0xF0];
    got.sort();
    assert_eq!(got, [0x30, 0x50], "PUBLISH and PUBREC");
}

/// What [`fill`] left comes, once.
fn drain(program: &Program) {
    for id in ["me", "other"] {
        let arguments = format!("-i {id} -c -x 100000 -t z -q 2 -C 1 -F %t|%p|%C");
        assert_eq!(client(program, "sub", &arguments), "a/b|waits|text/x\n");
    }
    let jobs = client(program, "sub", "-t $queue/jobs -q 1 -C 3 -F %p");
    assert_eq!(jobs, "job\n".repeat(3));
    assert_eq!(client(program, "sub", "-t r/# -C 1 -F %p|%r"), "kept|1\n");
    let mut mute = Raw::open(program.address);
    mute.send(&raw::connect(Version::V311, "mute", false, 0));
    assert_eq!(mute.packet(), [0x20, 2, 1, 0]);
    let again = mute.packet();
    assert_eq!(again[0], 0x3C, "PUBLISH at QoS 2, sent before");
    assert!(again.ends_with(b"in flight"));
}

#[test]
fn what_is_exported_and_imported_is_served() {
    let data = place("store_exported");
    let program = serve(&data);
    fill(&program);
    stop(program);
    let data = text(&data);

    let before = state(Path::new(data));
    let checked = succeeds(&["store", "check", data]);
    for line in [
        "sessions: 3, subscriptions: 3, messages: 3, packet ids in flight: 1",
        "queue \"$queue/jobs\", messages: 3",
        "retained messages: 1",
        "damage found: 0",
    ] {
        assert!(checked.lines().any(|other| other == line), "{checked}");
    }
    assert!(
        checked.starts_with(&format!("{data}: form 1, ")),
        "{checked}"
    );
    let exported = succeeds(&["store", "export", data]);
    assert!(before == state(Path::new(data)), "looking changes nothing");
    for line in exported.lines() {
        let line: Value = serde_json::from_str(line).expect(line);
        assert!(line["kind"].is_string(), "{line}");
    }

    let out = place("store_exported.jsonl");
    let out = text(&out);
    assert_eq!(succeeds(&["store", "export", data, "--out", out]), "");
    assert_eq!(fs::read_to_string(out).unwrap(), exported);
    assert_eq!(
        fs::metadata(out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(fails(&["store", "export", data, "--out", out]).contains("exists"));

    let imported = place("store_imported");
    let imported = text(&imported);
    let count = exported.lines().count();
    let said = succeeds(&["store", "import", out, imported]);
    assert_eq!(said, format!("{count} lines imported into {imported}.\n"));
    assert_eq!(succeeds(&["store", "export", imported]), exported);
    assert!(succeeds(&["store", "check", imported]).ends_with("damage found: 0\n"));
    assert!(fails(&["store", "import", out, imported]).contains("not empty"));
    let program = serve(Path::new(imported));
    drain(&program);
    stop(program);
}

#[test]
fn a_file_that_is_not_right_is_not_imported() {
    let data = place("store_half_imported");
    let file = place("store_wrong.jsonl");
    let lines = "{\"kind\":\"export\",\"form\":1}\n{\"kind\":\"session\",\"client\":\"a\"}\n\
        {\"kind\":\"subscription\",\"client\":\"a\",\"filter\":\"x\",\"qos\":\"1\"}\n";
    fs::write(&file, lines).unwrap();
    let error = fails(&["store", "import", text(&file), text(&data)]);
    assert!(
        error.contains("store_wrong.jsonl: line 3: the field qos "),
        "{error}"
    );
    assert!(!data.exists());
    // One that was there stays, empty.
    fs::create_dir(&data).unwrap();
    fails(&["store", "import", text(&file), text(&data)]);
    let right = lines.replace("\"1\"", "1") + "{\"kind\":\"end\",\"lines\":3}\n";
    fs::write(&file, right).unwrap();
    let mut import = rotamq(&["store", "import", "-", text(&data)]);
    import.stdin(fs::File::open(&file).unwrap());
    assert!(import.stdout(Stdio::null()).status().unwrap().success());
    let mode = fs::metadata(&data).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);

    let there_is_none = fails(&["store", "import", "/there/is/none", text(&data)]);
    assert!(there_is_none.contains("/there/is/none"), "{there_is_none}");
}

/// Changes a byte in the first of these in a file whose name begins so: the
/// file's name, and where.
fn flip(folder: &Path, prefix: &str, of: &[u8]) -> (String, usize) {
    for entry in fs::read_dir(folder).unwrap() {
        let (path, name) = entry
            .map(|entry| (entry.path(), entry.file_name()))
            .unwrap();
        let name = name.into_string().unwrap();
        if !name.starts_with(prefix) {
            continue;
        }
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(of.len()).position(|part| part == of) {
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            return (name, at);
        }
    }
    panic!("no file {prefix}* has it");
}

/// Where a file is damaged, as `rotamq store check` says.
fn damaged(said: &str, file: &str) -> Range<usize> {
    let begin = format!("damage: {file}, bytes ");
    let range = said.lines().find_map(|line| {
        let (range, _) = line.strip_prefix(&begin)?.split_once(':')?;
        let (from, to) = range.split_once(" to ")?;
        Some(from.parse().ok()?..to.parse().ok()?)
    });
    range.expect(said)
}

#[test]
fn damage_is_told_and_nothing_is_touched() {
    let data = place("store_damaged");
    let program = serve(&data);
    fill(&program);
    stop(program);
    let (log, at) = flip(&data, "log-", b"waits");
    let before = state(&data);
    let checked = output(&["store", "check", text(&data)]);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    let range = damaged(&said, &log);
    assert!(range.contains(&at) && range.len() < 2000, "{said}");
    // The rest is there.
    assert!(said.contains("retained messages: 1\n"), "{said}");
    // Of the session whose message had its body there.
    let lost = "damage: messages that are stored and cannot be read: 1\ndamage found: 2\n";
    assert!(said.ends_with(lost), "{said}");

    let exported = output(&["store", "export", text(&data)]);
    assert_eq!(exported.status.code(), Some(1));
    let stderr = String::from_utf8(exported.stderr).unwrap();
    assert!(
        stderr.contains("missing in the export") && stderr.contains(&log),
        "{stderr}"
    );
    assert!(
        String::from_utf8(exported.stdout)
            .unwrap()
            .contains("\"kept\"")
    );
    assert!(before == state(&data), "looking changes nothing");
}

/// What has long been there is checked too.
#[test]
fn damage_in_the_base_is_told() {
    let data = place("store_base_damaged");
    let config = file("small_log.toml", "[store]\nlog_bytes_max = 4194304\n");
    let config = ["--config", text(&config)];
    let program = Program::serve(&[&["--data", text(&data)], &config[..]].concat());
    let mut publisher = Raw::connect(program.address, Version::V311, "publisher");
    for n in 0..150_u32 {
        let payload = format!("job {n:03} ").repeat(5000);
        publisher.send(&raw::publish("$queue/big", payload.as_bytes(), 1, 1));
        assert_eq!(publisher.packet(), [0x40, 2, 0, 1]);
    }
    let is_in_base = || {
        let mut entries = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap());
        entries.any(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.starts_with("base-") && entry.metadata().unwrap().len() > 1 << 20
        })
    };
    until("some of it is in the base", is_in_base);
    stop(program);
    let check = [&["store", "check", text(&data)], &config[..]].concat();
    let said = succeeds(&check);
    assert!(
        said.contains("queue \"$queue/big\", messages: 150\n"),
        "{said}"
    );
    let (base, at) = flip(&data, "base-", b"job 005 ");
    let before = state(&data);
    let checked = output(&check);
    let said = String::from_utf8(checked.stdout).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{said}");
    assert!(damaged(&said, &base).contains(&at), "{said}");
    let left = said.lines().find_map(|line| {
        let count = line.strip_prefix("queue \"$queue/big\", messages: ")?;
        count.parse::<usize>().ok()
    });
    assert!((140..150).contains(&left.expect(&said)), "{said}");
    assert!(before == state(&data), "looking changes nothing");
}

#[test]
fn a_folder_in_use_is_not_looked_at() {
    let data = place("store_in_use");
    let program = serve(&data);
    let out = place("store_in_use.jsonl");
    for arguments in [
        &["store", "check", text(&data)][..],
        &["store", "export", text(&data), "--out", text(&out)],
        &["store", "import", "Cargo.toml", text(&data)],
    ] {
        let error = fails(arguments);
        let expected = match arguments[1] {
            "import" => "is not empty",
            _ => "a broker runs on the data folder",
        };
        assert!(error.contains(expected), "{error}");
    }
    assert!(!out.exists());
    let socket = fs::metadata(data.join("control.sock")).unwrap();
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    stop(program);
    assert!(!data.join("control.sock").exists());
    assert!(fails(&["store", "check", "/there/is/none"]).contains("no data folder"));
    let empty = place("store_empty");
    fs::create_dir(&empty).unwrap();
    assert!(fails(&["store", "check", text(&empty)]).contains("no store"));
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

fn backup(data: &Path, dest: &Path) -> Command {
    rotamq(&["store", "backup", text(dest), "--data", text(data)])
}

#[test]
fn a_backup_of_a_running_broker() {
    // So long that the socket's path does not fit where paths of sockets go.
    let data = place("store_backed_up").join("x".repeat(100));
    let program = serve(&data);
    fill(&program);
    // Somebody publishes all the time.
    let busy = client(&program, "sub", "-i busy -c -x 1000 -t busy -q 1 -E");
    assert_eq!(busy, "");
    let mut publisher = Raw::connect(program.address, Version::V311, "publisher");
    let mut acknowledged = 0_u32;
    let mut publish = |count: u32| {
        for _ in 0..count {
            let payload = acknowledged.to_be_bytes();
            publisher.send(&raw::publish("busy", &payload, 1, 1));
            assert_eq!(publisher.packet(), [0x40, 2, 0, 1]);
            acknowledged += 1;
        }
        acknowledged
    };
    let copy = place("store_backup");
    let before = publish(50);
    let mut child = backup(&data, &copy)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut after = before;
    until("the backup is done", || {
        after = publish(1);
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(
        stdout.ends_with(&format!(" copied to {}.\n", copy.display())),
        "{stdout}"
    );

    for entry in fs::read_dir(&copy).unwrap() {
        let metadata = entry.unwrap().metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o777,
        0o700
    );
    let checked = succeeds(&["store", "check", text(&copy)]);
    assert!(checked.ends_with("damage found: 0\n"), "{checked}");
    let exported = succeeds(&["store", "export", text(&copy)]);
    let of_busy = exported
        .lines()
        .filter(|line| line.contains("\"message\",\"client\":\"busy\""));
    let of_busy = u32::try_from(of_busy.count()).unwrap();
    assert!(
        (before..=after).contains(&of_busy),
        "{before} {of_busy} {after}"
    );

    let other = serve(&copy);
    drain(&other);
    stop(other);
    let error = fails(&["store", "backup", text(&copy), "--data", text(&data)]);
    assert!(error.contains("is not empty"), "{error}");
    let inside = data.join("copy");
    let error = fails(&["store", "backup", text(&inside), "--data", text(&data)]);
    assert!(error.contains("in the data folder itself"), "{error}");
    publish(1);
    stop(program);
}

#[test]
fn a_backup_when_no_broker_runs() {
    let data = place("store_stopped");
    let mut program = serve(&data);
    fill(&program);
    // It leaves its socket behind.
    program.signal(Signal::KILL);
    program.wait();
    assert!(data.join("control.sock").exists());
    let copy = place("store_stopped_copy");
    assert!(backup(&data, &copy).output().unwrap().status.success());
    let check = |folder: &Path| {
        let said = succeeds(&["store", "check", text(folder)]);
        said.split_once('\n').unwrap().1.to_owned()
    };
    assert_eq!(check(&copy), check(&data));
    let program = serve(&copy);
    drain(&program);
    stop(program);
    // The socket that was left is replaced.
    let program = serve(&data);
    let copy = place("store_stopped_copy");
    assert!(backup(&data, &copy).output().unwrap().status.success());
    stop(program);

    let copy = place("store_no_copy");
    let nothing = place("store_nothing");
    let error = fails(&["store", "backup", text(&copy), "--data", text(&nothing)]);
    assert!(error.contains("no data folder"), "{error}");
    assert!(!copy.exists());
}

/// A line that is no request, one that never ends, and a connection that says
/// nothing harm nobody.
#[test]
fn the_socket_takes_requests_only() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let data = place("store_socket");
    let program = serve(&data);
    let connect = || UnixStream::connect(data.join("control.sock")).unwrap();
    let silent = connect();
    for line in [
        "nonsense",
        "{}",
        "{\"command\":\"stop\"}",
        "{\"command\":\"backup\"}",
    ] {
        let mut stream = connect();
        stream.write_all(line.as_bytes()).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).expect(&answer);
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains("not understood"), "{error}");
    }
    let mut endless = connect();
    while endless.write_all(&[b'x'; 4096]).is_ok() {}
    client(&program, "pub", "-t x -q 1 -m x");
    drop(silent);
    stop(program);
    // A broker is not kept from its folder by a file in the socket's place.
    drop(UnixListener::bind(data.join("control.sock")).unwrap());
    stop(serve(&data));
}
