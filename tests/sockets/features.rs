//! Work queues in full: a test for each feature that no other file tells of.
//! README's table names them all.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use rotamq::Broker;
use rotamq::config::{Effective, Flags, Source};
use rustix::process::Signal;
use serde_json::Value;

use crate::clients::{
    Client, Extra, MOSQUITTO, MOSQUITTO_5, Options, PAHO, PAHO_5, Peer, Received, Subscription,
    Version, broker, broker_with,
};
use crate::process::{Program, output};
use crate::raw::{self, Raw};
use crate::wait::until;

/// Each asks in its own way: by user properties, or in the topic.
const PRODUCERS: [Peer; 4] = [MOSQUITTO, MOSQUITTO_5, PAHO, PAHO_5];
const WORKERS: [Peer; 2] = [PAHO, PAHO_5];

/// A broker with these tables in its configuration.
fn serve(tables: &str) -> Broker {
    let source = Source {
        path: Path::new("rotamq.toml").into(),
        text: tables.to_owned(),
    };
    let effective = Effective::load(Some(&source), [], &Flags::default()).unwrap();
    broker_with(|config| config.queue = effective.config.queue)
}

/// Puts a job in, with what is asked for it.
fn put(peer: Peer, address: SocketAddr, queue: &str, payload: &str, asked: &[(&str, &str)]) {
    let mut producer = peer.connect(address, "producer");
    let reason = put_by(&mut *producer, peer, queue, payload, asked);
    assert!(reason < 0x80, "{peer:?} is refused with 0x{reason:02X}");
    producer.disconnect();
}

fn put_by(
    producer: &mut dyn Client,
    peer: Peer,
    queue: &str,
    payload: &str,
    asked: &[(&str, &str)],
) -> u8 {
    let mut topic = format!("$queue/{queue}");
    let mut extra = Extra::default();
    if peer.version == Version::V5 {
        let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        extra.user = asked.iter().map(owned).collect();
    } else if !asked.is_empty() {
        let asked: Vec<_> = (asked.iter())
            .map(|(name, text)| format!("{name}={text}"))
            .collect();
        topic = format!("$queue/$with/{}/{queue}", asked.join("&"));
    }
    producer.publish_with(&topic, payload.as_bytes(), 1, false, &extra)
}

/// A member that acknowledges what it is told to.
fn join(peer: Peer, address: SocketAddr, id: &str, queue: &str) -> Box<dyn Client> {
    let mut member = peer.open(Options::clean(address, id).manual());
    let topic = format!("$queue/{queue}");
    assert_eq!(member.subscribe(&[&topic], 1), [1], "{peer:?}");
    member
}

/// A member of `jobs` that says more in its SUBSCRIBE.
fn join_with(
    peer: Peer,
    address: SocketAddr,
    id: &str,
    user: &'static [(&'static str, &'static str)],
) -> Box<dyn Client> {
    let mut member = peer.open(Options::clean(address, id).manual());
    let how = Subscription {
        qos: 1,
        user,
        ..Subscription::default()
    };
    assert_eq!(member.subscribe_with(&["$queue/jobs"], &how), [1]);
    member
}

/// The payloads of its next jobs, which are acknowledged.
fn work(member: &mut dyn Client, count: usize) -> Vec<String> {
    let jobs = (0..count).map(|_| {
        let job = member.receive();
        member.acknowledge(&job);
        job.text().to_owned()
    });
    jobs.collect()
}

/// A member that speaks MQTT 3.1.1 says something about a job.
fn say(member: &mut dyn Client, word: &str, job: &Received, seconds: &str) {
    let text = format!("{} {seconds}", job.packet_id);
    member.publish(
        &format!("$queue/${word}"),
        text.trim_end().as_bytes(),
        1,
        false,
    );
}

/// `rotamq queue`, and what it answers.
fn queue(address: SocketAddr, arguments: &[&str]) -> Value {
    let port = address.port().to_string();
    let output = output(&[&["queue"], arguments, &["--json", "-p", &port]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).unwrap();
    }
    path
}

/// A member holds as many as it, its queue or its client id says; the others
/// are for the next.
#[test]
fn prefetch() {
    let broker = serve(
        r##"
        [[queue]]
        name = "jobs"
        [[queue.member]]
        client = "old-*"
        prefetch = 2
        "##,
    );
    let address = broker.address();
    for peer in WORKERS {
        let mut member = match peer.version {
            Version::V5 => join_with(peer, address, "new", &[("prefetch", "2")]),
            _ => join(peer, address, "old-1", "jobs"),
        };
        for number in ["1", "2", "3", "4"] {
            put(MOSQUITTO, address, "jobs", number, &[]);
        }
        let held: Vec<_> = (0..2).map(|_| member.receive()).collect();
        let mut other = join(PAHO, address, "other", "jobs");
        assert_eq!(work(&mut *other, 2), ["3", "4"], "{peer:?}");
        other.disconnect();
        for job in &held {
            member.acknowledge(job);
        }
        put(MOSQUITTO, address, "jobs", "5", &[]);
        assert_eq!(work(&mut *member, 1), ["5"]);
        member.disconnect();
    }
}

/// What is not acknowledged in time comes to the next, who is told how many
/// times it was delivered; unless its member asked for more time.
#[test]
fn ack_timeouts() {
    let broker = serve(
        r##"
        [[queue]]
        name = "jobs"
        backoff_min_ms = 0
        [[queue.member]]
        client = "hasty-*"
        ack_timeout_ms = 3000
        "##,
    );
    let address = broker.address();
    for peer in WORKERS {
        let mut slow = match peer.version {
            Version::V5 => join_with(peer, address, "slow", &[("ack-timeout", "3")]),
            _ => join(peer, address, "hasty-1", "jobs"),
        };
        put(MOSQUITTO, address, "jobs", "extended", &[]);
        let extended = slow.receive();
        say(&mut *slow, "extend", &extended, "3600");
        put(MOSQUITTO, address, "jobs", "late", &[]);
        slow.receive();
        let mut other = join(PAHO_5, address, "other", "jobs");
        let job = other.receive();
        assert_eq!(job.text(), "late", "{peer:?}");
        assert_eq!(job.extra.user("delivery"), Some("2"));
        other.acknowledge(&job);
        slow.acknowledge(&extended);
        slow.disconnect();
        put(MOSQUITTO, address, "jobs", "fence", &[]);
        let fence = other.receive();
        assert_eq!(
            (fence.text(), fence.extra.user("delivery")),
            ("fence", Some("1"))
        );
        other.acknowledge(&fence);
        other.disconnect();
    }
}

/// By the reason code of PUBACK, or by a message with the packet id.
#[test]
fn refusing() {
    // The queue's own rest would not be waited for.
    let broker =
        serve("[[queue]]\nname = \"jobs\"\nbackoff_min_ms = 86_400_000\nbackoff_max_secs = 86_400");
    let address = broker.address();
    for peer in WORKERS {
        let mut member = join(peer, address, "member", "jobs");
        put(MOSQUITTO, address, "jobs", "job", &[]);
        let job = member.receive();
        let refused_at = Instant::now();
        match peer.version {
            Version::V5 => member.answer(&job, 0x83, &[("delay", "1")]),
            _ => say(&mut *member, "nack", &job, "1"),
        }
        let job = member.receive();
        assert_eq!(job.text(), "job", "{peer:?}");
        assert!(refused_at.elapsed() >= Duration::from_secs(1));
        match peer.version {
            Version::V5 => member.answer(&job, 0x99, &[]),
            _ => say(&mut *member, "reject", &job, ""),
        }
        let mut person = join(PAHO_5, address, "person", "$dead/jobs");
        let dead = person.receive();
        assert_eq!(dead.extra.user("dead-reason"), Some("rejected"));
        assert_eq!(dead.extra.user("dead-deliveries"), Some("2"));
        person.acknowledge(&dead);
        person.disconnect();
        member.disconnect();
    }
}

/// Who is busy rests, and the others are asked; it does not count.
#[test]
fn busy() {
    let broker = serve("[[queue]]\nname = \"jobs\"\nmax_deliveries = 1");
    let address = broker.address();
    let mut busy = join(PAHO_5, address, "busy", "jobs");
    for number in ["1", "2", "3"] {
        put(MOSQUITTO, address, "jobs", number, &[]);
    }
    let jobs: Vec<_> = (0..3).map(|_| busy.receive()).collect();
    let mut other = join(PAHO_5, address, "other", "jobs");
    busy.answer(&jobs[0], 0x97, &[]);
    let job = other.receive();
    assert_eq!((job.text(), job.extra.user("delivery")), ("1", Some("2")));
    other.acknowledge(&job);
    // Alone it is asked again after its rest.
    other.disconnect();
    busy.answer(&jobs[1], 0x97, &[]);
    let job = busy.receive();
    assert_eq!((job.text(), job.extra.user("delivery")), ("2", Some("2")));
}

/// What failed rests, longer each time, and is a dead letter in the end.
#[test]
fn max_deliveries() {
    let broker = serve(
        r##"
        [[queue]]
        name = "fails"
        max_deliveries = 3
        backoff_min_ms = 10
        [[queue]]
        name = "rests"
        backoff_min_ms = 86_400_000
        backoff_max_secs = 86_400
        "##,
    );
    let address = broker.address();
    for peer in WORKERS {
        let mut member = join(peer, address, "member", "fails");
        let fail = |member: &mut dyn Client| {
            let job = member.receive();
            match peer.version {
                Version::V5 => member.answer(&job, 0x80, &[]),
                _ => say(member, "nack", &job, ""),
            }
        };
        put(MOSQUITTO, address, "fails", "job", &[]);
        for _ in 0..3 {
            fail(&mut *member);
        }
        let mut person = join(PAHO_5, address, "person", "$dead/fails");
        let dead = person.receive();
        assert_eq!(
            dead.extra.user("dead-reason"),
            Some("max-deliveries"),
            "{peer:?}"
        );
        assert_eq!(dead.extra.user("dead-deliveries"), Some("3"));
        person.acknowledge(&dead);
        assert_eq!(member.subscribe(&["$queue/rests"], 1), [1]);
        put(MOSQUITTO, address, "rests", "job", &[]);
        fail(&mut *member);
        until("it rests", || {
            queue(address, &["show", "rests"])["delayed"] == 1
        });
        queue(address, &["purge", "rests"]);
        person.disconnect();
        member.disconnect();
    }
}

/// Dead letters say why; they are put in again, and remember if they die again.
#[test]
fn dead_letters() {
    let broker = broker();
    let address = broker.address();
    for peer in WORKERS {
        let mut member = join(peer, address, "member", "jobs/a");
        let reject = |member: &mut dyn Client| {
            let job = member.receive();
            match peer.version {
                Version::V5 => member.answer(&job, 0x99, &[]),
                _ => say(member, "reject", &job, ""),
            }
        };
        let dead = || queue(address, &["show", "jobs/a"])["dead"].clone();
        put(MOSQUITTO, address, "jobs/a", "job", &[]);
        for count in ["1", "2"] {
            reject(&mut *member);
            until("it is dead", || dead() == 1);
            let peeked = queue(address, &["peek", "$dead/jobs/a"]);
            let shown = peeked.to_string();
            for part in ["rejected", "dead-count", "dead-first-at"] {
                assert!(shown.contains(part), "{part}: {shown}");
            }
            if count == "1" {
                assert_eq!(queue(address, &["redrive", "jobs/a"])["moved"], 1);
            }
        }
        let mut person = join(PAHO_5, address, "person", "$dead/jobs/a");
        let letter = person.receive();
        assert_eq!(
            (&*letter.topic, letter.text()),
            ("jobs/a", "job"),
            "{peer:?}"
        );
        assert_eq!(letter.extra.user("dead-queue"), Some("jobs/a"));
        assert_eq!(letter.extra.user("dead-count"), Some("2"));
        let before = letter.extra.user("dead-before").expect("it died before");
        assert!(before.contains("rejected"), "{before}");
        person.acknowledge(&letter);
        person.disconnect();
        member.disconnect();
    }
}

/// For some seconds or until a moment; jobs, and messages to any topic.
#[test]
fn delays() {
    let broker = broker();
    let address = broker.address();
    let mut worker = join(PAHO_5, address, "worker", "jobs");
    let mut subscribers = [
        PAHO.subscriber(address, "3.1.1", "news", 1),
        MOSQUITTO_5.subscriber(address, "5", "news", 1),
    ];
    for peer in PRODUCERS {
        let sent_at = Instant::now();
        let in_a_second = SystemTime::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(1);
        let at = in_a_second.as_secs_f64().to_string();
        put(peer, address, "jobs", "not today", &[("delay", "86400")]);
        put(peer, address, "jobs", "delay", &[("delay", "1")]);
        put(peer, address, "jobs", "at", &[("at", &at)]);
        peer.publish(address, "$delayed/1/$queue/jobs", "topic", 1, false);
        peer.publish(address, "$delayed/1/news", "news", 1, false);
        let mut jobs = work(&mut *worker, 3);
        assert!(sent_at.elapsed() >= Duration::from_secs(1));
        jobs.sort();
        assert_eq!(jobs, ["at", "delay", "topic"], "{peer:?}");
        for subscriber in &mut subscribers {
            let news = subscriber.receive();
            assert_eq!((&*news.topic, news.text()), ("news", "news"));
        }
        assert!(sent_at.elapsed() >= Duration::from_secs(1));
    }
    assert_eq!(
        queue(address, &["show", "jobs"])["delayed"],
        PRODUCERS.len()
    );
}

/// As the message says itself, or its queue for all.
#[test]
fn expiry() {
    let broker = serve(
        r##"
        [[queue]]
        name = "kept"
        dead_letter_expired = true
        [[queue]]
        name = "short/#"
        ttl_secs = 1
        dead_letter_expired = true
        [[queue]]
        name = "dropped"
        ttl_secs = 1
        "##,
    );
    let address = broker.address();
    for peer in PRODUCERS {
        let name = match peer.version {
            Version::V5 => {
                let expiry = Extra {
                    expiry_secs: Some(1),
                    ..Extra::default()
                };
                let mut producer = peer.connect(address, "producer");
                producer.publish_with("$queue/kept", b"job", 1, false, &expiry);
                producer.disconnect();
                "kept"
            }
            _ => {
                put(peer, address, "short/1", "job", &[]);
                "short/1"
            }
        };
        let mut person = join(PAHO_5, address, "person", &format!("$dead/{name}"));
        let dead = person.receive();
        assert_eq!(dead.extra.user("dead-reason"), Some("expired"), "{peer:?}");
        person.acknowledge(&dead);
        person.disconnect();
    }
    put(MOSQUITTO, address, "dropped", "job", &[]);
    until("it is dropped", || {
        queue(address, &["show", "dropped"])["totals"]["expired"] == 1
    });
}

/// The highest first, the oldest first within.
#[test]
fn priorities() {
    let broker = broker();
    let address = broker.address();
    for peer in PRODUCERS {
        for (payload, priority) in [
            ("low", Some("0")),
            ("usual", None),
            ("high", Some("9")),
            ("usual too", None),
            ("high too", Some("9")),
        ] {
            let asked = priority.map(|priority| ("priority", priority));
            put(peer, address, "jobs", payload, asked.as_slice());
        }
        for worker in WORKERS {
            let mut member = join(worker, address, "member", "jobs");
            let order = ["high", "high too", "usual", "usual too", "low"];
            let jobs: Vec<_> = order.iter().map(|_| member.receive()).collect();
            let texts: Vec<_> = jobs.iter().map(Received::text).collect();
            assert_eq!(texts, order, "{peer:?} to {worker:?}");
            if worker == PAHO {
                // What comes back stands where it stood.
                member.kill();
                continue;
            }
            for job in &jobs {
                member.acknowledge(job);
            }
            member.disconnect();
        }
    }
}

/// One at a time and in order, others beside it; and a group stays with its
/// member.
#[test]
fn groups() {
    let broker = serve("[[queue]]\nname = \"orders/#\"\ngroup_level = 2");
    let address = broker.address();
    for (peer, by_level) in PRODUCERS
        .into_iter()
        .flat_map(|peer| [(peer, false), (peer, true)])
    {
        let name = match by_level {
            true => "orders/#",
            false => "jobs",
        };
        let put = |group: &str, payload: &str| match by_level {
            true => put(peer, address, &format!("orders/{group}"), payload, &[]),
            false => put(peer, address, name, payload, &[("group", group)]),
        };
        let mut first = join(PAHO, address, "first", name);
        let mut second = join(PAHO_5, address, "second", name);
        for (group, payload) in [("a", "a1"), ("a", "a2"), ("b", "b1"), ("c", "c1")] {
            put(group, payload);
        }
        let jobs = [first.receive(), first.receive()];
        assert_eq!((jobs[0].text(), jobs[1].text()), ("a1", "c1"), "{peer:?}");
        assert_eq!(work(&mut *second, 1), ["b1"]);
        first.acknowledge(&jobs[0]);
        assert_eq!(work(&mut *first, 1), ["a2"]);
        first.acknowledge(&jobs[1]);
        for number in ["a3", "a4"] {
            put("a", number);
            assert_eq!(work(&mut *first, 1), [number]);
        }
        // Who is gone has no groups.
        first.disconnect();
        put("a", "a5");
        assert_eq!(work(&mut *second, 1), ["a5"]);
        second.disconnect();
    }
}

/// A group with many jobs does not hold up one with few.
#[test]
fn fair() {
    let broker = serve("[[queue]]\nname = \"jobs\"\nfair = true");
    let address = broker.address();
    for peer in PRODUCERS {
        for (group, payload) in [
            ("many", "many 1"),
            ("many", "many 2"),
            ("many", "many 3"),
            ("few", "few 1"),
            ("few", "few 2"),
        ] {
            put(peer, address, "jobs", payload, &[("group", group)]);
        }
        let mut member = join(PAHO, address, "member", "jobs");
        assert_eq!(
            work(&mut *member, 5),
            ["many 1", "few 1", "many 2", "few 2", "many 3"],
            "{peer:?}"
        );
        member.disconnect();
    }
}

#[test]
fn exclusive() {
    let broker = serve("[[queue]]\nname = \"jobs\"\nexclusive = true");
    let address = broker.address();
    for (eldest, next) in [(PAHO, PAHO_5), (PAHO_5, PAHO)] {
        let mut eldest = join(eldest, address, "eldest", "jobs");
        let mut next = join(next, address, "next", "jobs");
        for number in ["1", "2", "3"] {
            put(MOSQUITTO, address, "jobs", number, &[]);
        }
        for number in ["1", "2", "3"] {
            assert_eq!(eldest.receive().text(), number);
        }
        eldest.kill();
        assert_eq!(work(&mut *next, 3), ["1", "2", "3"]);
        next.disconnect();
    }
}

/// Who has fewest in its hands is next.
#[test]
fn least_inflight() {
    let broker = serve("[[queue]]\nname = \"+\"\ndispatch = \"least-inflight\"");
    let address = broker.address();
    for (full, idle, name) in [(PAHO, PAHO_5, "a"), (PAHO_5, PAHO, "b")] {
        let mut full = join(full, address, "full", name);
        for number in ["1", "2", "3"] {
            put(MOSQUITTO, address, name, number, &[]);
        }
        for number in ["1", "2", "3"] {
            assert_eq!(full.receive().text(), number);
        }
        let mut idle = join(idle, address, "idle", name);
        for number in ["4", "5", "6"] {
            put(MOSQUITTO, address, name, number, &[]);
        }
        for number in ["4", "5", "6"] {
            assert_eq!(idle.receive().text(), number);
        }
    }
}

/// A second one is acknowledged, and not put in; MQTT 5 clients are told so.
#[test]
fn deduplication() {
    let broker = broker();
    let address = broker.address();
    for peer in PRODUCERS {
        let name = format!("jobs/{peer:?}");
        let mut member = join(PAHO_5, address, "member", &name);
        let mut producer = peer.connect(address, "producer");
        let mut ids = Vec::new();
        for _ in 0..2 {
            put_by(
                &mut *producer,
                peer,
                &name,
                "once",
                &[("dedup-id", "order-7")],
            );
            ids.push(match peer {
                PAHO_5 => producer.told(),
                _ => Vec::new(),
            });
        }
        put_by(&mut *producer, peer, &name, "fence", &[]);
        let job = member.receive();
        assert_eq!((job.text(), member.receive().text()), ("once", "fence"));
        if peer == PAHO_5 {
            let id = job.extra.user("message-id").expect("a queue tells it");
            let told = ("message-id".to_owned(), id.to_owned());
            let duplicate = ("duplicate".to_owned(), "1".to_owned());
            assert_eq!(ids, [vec![told.clone()], vec![told, duplicate]]);
        }
        member.disconnect();
    }
}

/// A connection of bytes with a session that outlives it, or with a new one.
fn open(version: Version, address: SocketAddr, id: &str, clean: bool) -> Raw {
    let mut client = Raw::open(address);
    match version {
        Version::V5 => {
            let flags = if clean { 2 } else { 0 };
            let head = [&raw::text("MQTT")[..], &[5, flags, 0, 60]].concat();
            // Session Expiry Interval.
            let properties = [5, 0x11, 0, 0, 0xFF, 0xFF];
            client.send(&raw::packet(
                0x10,
                &[&head, &properties[..], &raw::text(id)].concat(),
            ));
        }
        _ => client.send(&raw::connect(version, id, clean, 60)),
    }
    let connack = client.packet();
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{version:?}");
    client
}

/// Becomes a member at QoS 2.
fn join_at_qos_2(version: Version, client: &mut Raw, topic: &str) {
    match version {
        Version::V5 => {
            let body = [&[0, 1, 0][..], &raw::text(topic), &[2]].concat();
            client.send(&raw::packet(0x82, &body));
        }
        _ => client.send(&raw::subscribe(1, topic, 2)),
    }
    let suback = client.packet();
    assert_eq!((suback[0], suback.last()), (0x90, Some(&2)), "{version:?}");
}

/// Of a PUBLISH whose topic is this.
fn packet_id(publish: &[u8], topic: &str) -> [u8; 2] {
    let at = publish
        .windows(topic.len())
        .position(|part| part == topic.as_bytes());
    let end = at.expect("it is there") + topic.len();
    [publish[end], publish[end + 1]]
}

/// Kills it, and starts it anew on the same data.
fn crash(mut program: Program, data: &str) -> Program {
    program.signal(Signal::KILL);
    program.wait();
    Program::serve(&["--data", data])
}

/// QoS 2 from the producer and to the member, with a broker that crashes
/// between its steps: the job comes to one member, once.
#[test]
fn exactly_once() {
    const TOPIC: &str = "$queue/jobs";
    for version in [Version::V311, Version::V5] {
        let data = folder(&format!("features_once_{version:?}"));
        let data = data.to_str().unwrap();
        let mut program = Program::serve(&["--data", data]);
        let others_get = |program: &Program, payload: &str| {
            let mut other = join(PAHO, program.address, "other", "jobs");
            put(MOSQUITTO, program.address, "jobs", payload, &[]);
            assert_eq!(work(&mut *other, 1), [payload], "{version:?}");
            other.disconnect();
        };
        let mut member = open(version, program.address, "member", false);
        join_at_qos_2(version, &mut member, TOPIC);
        let producer = match version {
            Version::V5 => PAHO_5,
            _ => PAHO,
        };
        producer.publish(program.address, TOPIC, "once", 2, false);
        let job = member.packet();
        assert_eq!((job[0], &job[job.len() - 4..]), (0x34, &b"once"[..]));
        let id = packet_id(&job, TOPIC);
        drop(member);
        others_get(&program, "after it was written");

        program = crash(program, data);
        others_get(&program, "after a crash");
        let mut member = open(version, program.address, "member", false);
        let again = member.packet();
        assert_eq!((again[0], packet_id(&again, TOPIC)), (0x3C, id), "with DUP");
        member.send(&[0x50, 2, id[0], id[1]]);
        assert_eq!(member.packet(), [0x62, 2, id[0], id[1]]);

        program = crash(program, data);
        let mut member = open(version, program.address, "member", false);
        assert_eq!(member.packet(), [0x62, 2, id[0], id[1]]);
        member.send(&[0x70, 2, id[0], id[1]]);
        assert!(member.fence().is_empty());
        let shown = queue(program.address, &["show", "jobs"]);
        assert_eq!(
            (&shown["ready"], &shown["in_flight"]),
            (&0.into(), &0.into())
        );
    }
}

/// Nobody knows whether a member at QoS 2 that never comes back has done it.
#[test]
fn undecided() {
    let broker = serve("[[queue]]\nname = \"again\"\nundecided = \"redeliver\"");
    let address = broker.address();
    for version in [Version::V311, Version::V5] {
        for name in ["jobs", "again"] {
            let topic = format!("$queue/{name}");
            let mut member = open(version, address, "member", false);
            join_at_qos_2(version, &mut member, &topic);
            put(MOSQUITTO, address, name, "job", &[]);
            assert_eq!(member.packet()[0], 0x34);
            // The end of its session.
            open(version, address, "member", true);
            let from = match name {
                "jobs" => "$dead/jobs",
                _ => name,
            };
            let mut person = join(PAHO_5, address, "person", from);
            let job = person.receive();
            let reason = (name == "jobs").then_some("undecided");
            assert_eq!(job.extra.user("dead-reason"), reason, "{version:?}");
            person.acknowledge(&job);
            person.disconnect();
        }
    }
}

/// Only the newest of each key waits.
#[test]
fn last_value() {
    let broker = serve(
        r##"
        [[queue]]
        name = "state/#"
        last_value = "topic"
        [[queue]]
        name = "readings"
        last_value = "property:device"
        "##,
    );
    let address = broker.address();
    // Somebody has to have made it.
    join(PAHO, address, "first", "state/#").disconnect();
    for peer in PRODUCERS {
        for (device, value) in [("a", "a old"), ("b", "b"), ("a", "a new")] {
            peer.publish(address, &format!("state/{device}"), value, 1, false);
            if peer.version == Version::V5 {
                put(peer, address, "readings", value, &[("device", device)]);
            }
        }
        for (worker, name) in [(PAHO, "state/#"), (PAHO_5, "readings")] {
            if peer.version == Version::V5 || name == "state/#" {
                let mut member = join(worker, address, "member", name);
                assert_eq!(work(&mut *member, 2), ["b", "a new"], "{peer:?}");
                member.disconnect();
            }
        }
    }
}

/// What a full queue does; the publisher is told the truth.
#[test]
fn limits() {
    let broker = serve(
        r##"
        [[queue]]
        name = "reject"
        max_messages = 1
        [[queue]]
        name = "drop"
        max_messages = 2
        overflow = "drop-oldest"
        [[queue]]
        name = "dead"
        max_messages = 2
        overflow = "dead-letter-oldest"
        [[queue]]
        name = "small"
        max_message_bytes = 3
        "##,
    );
    let address = broker.address();
    for peer in [PAHO, PAHO_5] {
        put(peer, address, "reject", "1", &[]);
        let mut producer = peer.connect(address, "producer");
        let mut reject = || put_by(&mut *producer, peer, "reject", "2", &[]);
        match peer.version {
            Version::V5 => {
                assert_eq!(reject(), 0x97);
                let mut member = join(peer, address, "member", "reject");
                assert_eq!(work(&mut *member, 1), ["1"]);
                member.disconnect();
            }
            // Held back until there is room.
            _ => std::thread::scope(|scope| {
                let held = scope.spawn(reject);
                let mut member = join(peer, address, "member", "reject");
                assert_eq!(work(&mut *member, 2), ["1", "2"]);
                assert_eq!(held.join().unwrap(), 0);
                member.disconnect();
            }),
        }
        for name in ["drop", "dead"] {
            for number in ["1", "2", "3"] {
                put(peer, address, name, number, &[]);
            }
            let mut member = join(peer, address, "member", name);
            assert_eq!(work(&mut *member, 2), ["2", "3"], "{peer:?} {name}");
            member.disconnect();
        }
        let mut person = join(PAHO_5, address, "person", "$dead/dead");
        let letter = person.receive();
        assert_eq!(letter.text(), "1");
        assert_eq!(letter.extra.user("dead-reason"), Some("overflow"));
        person.acknowledge(&letter);
        person.disconnect();
    }
    let mut five = PAHO_5.connect(address, "five");
    assert_eq!(put_by(&mut *five, PAHO_5, "small", "four", &[]), 0x97);
    let mut three = Raw::connect(address, Version::V311, "three");
    three.send(&raw::publish("$queue/small", b"four", 1, 1));
    assert!(three.until_closed().is_empty(), "it is not acknowledged");
}

/// Several queues over one topic get each message; subscribers do as ever.
#[test]
fn bindings() {
    let broker = serve(
        r##"
        [[queue]]
        name = "billing"
        filters = ["orders/+/paid", "refunds/#"]
        [[queue]]
        name = "audit"
        filters = ["orders/#"]
        "##,
    );
    let address = broker.address();
    for peer in PRODUCERS {
        let mut billing = join(PAHO, address, "billing", "billing");
        let mut audit = join(PAHO_5, address, "audit", "audit");
        let mut ordinary = PAHO.subscriber(address, "ordinary", "orders/#", 1);
        for topic in ["orders/7/new", "orders/7/paid", "refunds/7"] {
            peer.publish(address, topic, topic, 1, false);
        }
        assert_eq!(work(&mut *billing, 2), ["orders/7/paid", "refunds/7"]);
        let orders = ["orders/7/new", "orders/7/paid"];
        assert_eq!(work(&mut *audit, 2), orders, "{peer:?}");
        for order in orders {
            assert_eq!(ordinary.receive().topic, order);
        }
        for client in [billing, audit, ordinary] {
            client.disconnect();
        }
    }
}

/// Members get nothing while a queue is paused, and nothing of what was purged.
#[test]
fn pausing_and_purging() {
    let broker = broker();
    let address = broker.address();
    for peer in WORKERS {
        let mut member = join(peer, address, "member", "jobs");
        queue(address, &["pause", "jobs"]);
        put(peer, address, "jobs", "purged", &[]);
        assert_eq!(queue(address, &["purge", "jobs"])["purged"], 1);
        put(peer, address, "jobs", "low", &[("priority", "0")]);
        put(peer, address, "jobs", "high", &[("priority", "9")]);
        queue(address, &["resume", "jobs"]);
        // It would have got the other first.
        assert_eq!(work(&mut *member, 2), ["high", "low"], "{peer:?}");
        member.disconnect();
    }
}

/// Settings for queues that are made by who uses them.
#[test]
fn patterns() {
    let broker = serve(
        r##"
        [[queue]]
        name = "alarms/+"
        topic = "original"
        priority = 9
        [[queue]]
        name = "#"
        exclusive = true
        "##,
    );
    let address = broker.address();
    for (peer, name) in WORKERS.into_iter().zip(["alarms/1", "alarms/2"]) {
        put(peer, address, name, "job", &[]);
        let settings = queue(address, &["show", name])["settings"].clone();
        assert_eq!(
            (&settings["priority"], &settings["exclusive"]),
            (&9.into(), &false.into())
        );
        let mut member = join(peer, address, "member", name);
        assert_eq!(member.receive().topic, name);
        member.disconnect();
        let mut member = join(peer, address, "member", "other");
        assert_eq!(
            queue(address, &["show", "other"])["settings"]["exclusive"],
            true
        );
        put(peer, address, "other", "job", &[]);
        assert_eq!(work(&mut *member, 1), ["job"]);
        member.disconnect();
    }
}

/// Acknowledged jobs are there after a crash: in their order and groups, with
/// what happened to them.
#[test]
fn restarts() {
    for peer in WORKERS {
        let data = folder(&format!("features_restarts_{:?}", peer.version));
        let data = data.to_str().unwrap();
        let program = Program::serve(&["--data", data]);
        let address = program.address;
        let mut member = join_with(PAHO_5, address, "member", &[("prefetch", "1")]);
        put(peer, address, "jobs", "rejected", &[]);
        let job = member.receive();
        member.answer(&job, 0x99, &[]);
        put(peer, address, "jobs", "held", &[]);
        assert_eq!(member.receive().text(), "held");
        for (payload, asked) in [
            ("a1", ("group", "a")),
            ("a2", ("group", "a")),
            ("first", ("priority", "9")),
            ("late", ("delay", "1")),
            ("last", ("priority", "0")),
        ] {
            put(peer, address, "jobs", payload, &[asked]);
        }
        let program = crash(program, data);
        let address = program.address;
        drop(member);
        until("what was put off is due", || {
            queue(address, &["show", "jobs"])["delayed"] == 0
        });
        let mut member = join(PAHO_5, address, "member", "jobs");
        let jobs: Vec<_> = (0..5).map(|_| member.receive()).collect();
        let texts: Vec<_> = jobs.iter().map(Received::text).collect();
        assert_eq!(texts, ["first", "held", "a1", "late", "last"], "{peer:?}");
        assert_eq!(jobs[0].extra.user("delivery"), Some("1"));
        assert_eq!(jobs[1].extra.user("delivery"), Some("2"));
        for job in &jobs {
            member.acknowledge(job);
        }
        assert_eq!(work(&mut *member, 1), ["a2"]);
        let mut person = join(PAHO_5, address, "person", "$dead/jobs");
        let letter = person.receive();
        assert_eq!(
            (letter.text(), letter.extra.user("dead-reason")),
            ("rejected", Some("rejected"))
        );
    }
}
