//! Work queues and share groups.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use crate::clients::{
    Client, GMQTT_5, LIBRARIES, MOSQUITTO, MOSQUITTO_5, MOSQUITTO_31, MQTTJS, MQTTJS_5, Options,
    PAHO, PAHO_5, PAHO_31, Peer, RUMQTTC, RUMQTTC_5, Version, broker, broker_with,
    mosquitto_command,
};
use crate::process::rotamq;
use crate::raw::{self, Raw};
use crate::wait::{DEADLINE, until};

/// mosquitto_pub with a message a line.
fn publish_lines(version: Version, address: std::net::SocketAddr, topic: &str, jobs: Range<usize>) {
    let mut publisher = mosquitto_command("mosquitto_pub", version, address)
        .args(["-t", topic, "-q", "1", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = publisher.stdin.take().expect("it is piped");
    for number in jobs {
        writeln!(lines, "{number}").unwrap();
    }
    drop(lines);
    assert!(publisher.wait().unwrap().success());
}

/// A worker that works jobs off until it is told to hold them, and is killed
/// with as many in its hands as it may: what it has done, and what it held.
fn work_and_die(
    mut worker: Box<dyn Client>,
    hold: &AtomicBool,
    prefetch: usize,
) -> (Vec<String>, Vec<String>) {
    let (mut done, mut held) = (Vec::new(), Vec::new());
    while held.len() < prefetch {
        let job = worker.receive();
        if hold.load(Ordering::Relaxed) {
            held.push(job.text().to_owned());
        } else {
            done.push(job.text().to_owned());
            worker.acknowledge(&job);
        }
    }
    worker.kill();
    (done, held)
}

/// Three workers, of three libraries, share 10,000 jobs. One is killed in the
/// middle, with jobs in its hands: these come to the others, and no other job
/// comes twice.
#[test]
fn a_killed_worker_loses_no_job() {
    const JOBS: usize = 10_000;
    const PREFETCH: usize = 16;
    let broker = broker();
    let address = broker.address();
    for (killed, others, version) in [
        (PAHO, [MOSQUITTO, RUMQTTC], Version::V311),
        (PAHO_31, [MOSQUITTO_31, PAHO_31], Version::V31),
        (RUMQTTC_5, [MQTTJS_5, PAHO], Version::V5),
        (PAHO_5, [MOSQUITTO_5, GMQTT_5], Version::V311),
    ] {
        let topic = format!("$queue/jobs/{:?}/{version:?}", killed.library);
        let join = |peer: Peer, id: &str| {
            let mut options = Options::clean(address, id);
            options.manual = LIBRARIES.contains(&peer);
            let mut worker = peer.open(options);
            assert_eq!(worker.subscribe(&[&topic], 1), [1], "{peer:?}");
            worker
        };
        let (sender, results) = channel();
        let dying = join(killed, "dying");
        let living = [
            (LIBRARIES.contains(&others[0]), join(others[0], "living 0")),
            (LIBRARIES.contains(&others[1]), join(others[1], "living 1")),
        ];
        let hold = Arc::new(AtomicBool::new(false));
        let held = hold.clone();
        let dying = thread::spawn(move || work_and_die(dying, &held, PREFETCH));
        let living =
            ["living 0", "living 1"]
                .into_iter()
                .zip(living)
                .map(|(id, (manual, mut worker))| {
                    let sender = sender.clone();
                    thread::spawn(move || {
                        loop {
                            let job = worker.receive();
                            if manual {
                                worker.acknowledge(&job);
                            }
                            if job.text() == "stop" {
                                return worker.disconnect();
                            }
                            sender.send((id, job)).expect("all are counted");
                        }
                    })
                });
        let living: Vec<_> = living.collect();
        drop(sender);
        publish_lines(version, address, &topic, 0..JOBS / 2);
        hold.store(true, Ordering::Relaxed);
        publish_lines(version, address, &topic, JOBS / 2..JOBS);
        let (done, held) = dying.join().unwrap();
        assert!(!done.is_empty() && held.len() == PREFETCH);
        let mut by_whom: HashMap<String, Vec<&str>> = HashMap::new();
        for job in done {
            by_whom.entry(job).or_default().push("dying");
        }
        while by_whom.len() < JOBS {
            let (id, job) = results.recv_timeout(DEADLINE).expect("jobs are left");
            assert_eq!(job.topic, topic);
            by_whom.entry(job.text().to_owned()).or_default().push(id);
        }
        // One each, for who has gone gets no second.
        for _ in &living {
            PAHO.publish(address, &topic, "stop", 1, false);
        }
        for worker in living {
            worker.join().unwrap();
        }
        for (id, job) in results {
            by_whom.entry(job.text().to_owned()).or_default().push(id);
        }
        // All were done, and those that the killed one held by somebody else.
        let twice: Vec<_> = by_whom.iter().filter(|(_, who)| who.len() > 1).collect();
        assert!(twice.is_empty(), "{version:?}: done twice: {twice:?}");
        for number in 0..JOBS {
            assert!(by_whom.contains_key(&number.to_string()), "{number}");
        }
    }
}

/// The program's own worker, which acknowledges what it is told to.
#[test]
fn jobs_in_the_hands_of_rotamq_sub_come_to_others_when_it_is_killed() {
    let broker = broker();
    let port = broker.address().port().to_string();
    let mut worker = rotamq(&["sub", "-p", &port, "-t", "$queue/jobs", "-q", "1"])
        .args(["--ack", "manual"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(worker.stdout.take().expect("it is piped")).lines();
    until("it is a member", || broker.subscriptions_len() == 1);
    publish_lines(Version::V311, broker.address(), "$queue/jobs", 0..5);
    let jobs: Vec<String> = (0..5).map(|_| lines.next().unwrap().unwrap()).collect();
    let (packet_id, job) = jobs[0].split_once(' ').expect("ID JOB");
    assert_eq!(job, "0");
    let mut input = worker.stdin.take().expect("it is piped");
    writeln!(input, "ack {packet_id}").unwrap();
    let (packet_id, _) = jobs[1].split_once(' ').expect("ID JOB");
    writeln!(input, "nack {packet_id} 0").unwrap();
    let again = lines.next().unwrap().unwrap();
    assert!(again.ends_with(" 1") && again != jobs[1], "{again}");
    let mut other = PAHO.subscriber(broker.address(), "other", "$queue/jobs", 1);
    worker.kill().unwrap();
    worker.wait().unwrap();
    for job in ["1", "2", "3", "4"] {
        assert_eq!(other.receive().text(), job);
    }
}

#[test]
fn members_take_turns_and_jobs_wait_for_the_first_of_them() {
    let broker = broker();
    let address = broker.address();
    for (producer, members) in [
        (MOSQUITTO, [PAHO, RUMQTTC]),
        (PAHO, [MOSQUITTO, MOSQUITTO_31]),
        (MOSQUITTO_31, [PAHO_31, PAHO]),
        (MOSQUITTO_5, [PAHO_5, MQTTJS]),
        (PAHO, [MQTTJS_5, MOSQUITTO_5]),
        (GMQTT_5, [RUMQTTC, GMQTT_5]),
        (MQTTJS_5, [RUMQTTC_5, PAHO_31]),
    ] {
        let topic = format!("$queue/turns/{producer:?}");
        // A producer may come first.
        producer.publish(address, &topic, "early", 1, false);
        let mut first = members[0].subscriber(address, "first", &topic, 1);
        assert_eq!(first.receive().text(), "early");
        let mut second = members[1].subscriber(address, "second", &topic, 1);
        let mut sender = producer.connect(address, "producer");
        let mut counts = [0, 0];
        for number in 0..10 {
            sender.publish(&topic, number.to_string().as_bytes(), 1, false);
        }
        for (member, count) in [&mut first, &mut second].into_iter().zip(&mut counts) {
            for _ in 0..5 {
                let job = member.receive();
                assert_eq!((&*job.topic, job.qos), (&*topic, 1));
                *count += 1;
            }
        }
        assert_eq!(counts, [5, 5], "{producer:?}");
        first.disconnect();
        second.disconnect();
    }
}

/// A queue is also fed by its plain topic, and ordinary subscribers are not
/// disturbed.
#[test]
fn a_plain_topic_feeds_the_queue_of_its_name() {
    let broker = broker();
    let address = broker.address();
    for peer in LIBRARIES {
        let mut member = peer.subscriber(address, "member", "$queue/fed/+", 1);
        let mut ordinary = peer.subscriber(address, "ordinary", "#", 1);
        MOSQUITTO.publish(address, "fed/1", "both", 1, false);
        MOSQUITTO.publish(address, "$queue/fed/1", "member only", 1, false);
        MOSQUITTO.publish(address, "fence", "fence", 1, false);
        let job = member.receive();
        assert_eq!((&*job.topic, job.text()), ("$queue/fed/1", "both"));
        assert_eq!(member.receive().text(), "member only");
        let message = ordinary.receive();
        assert_eq!((&*message.topic, message.text()), ("fed/1", "both"));
        assert_eq!(ordinary.receive().text(), "fence");
        member.disconnect();
        ordinary.disconnect();
    }
}

#[test]
fn a_job_that_is_refused_comes_to_another_and_a_rejected_one_is_a_dead_letter() {
    let broker = broker();
    let address = broker.address();
    for peer in LIBRARIES {
        let mut first = peer.open(Options::clean(address, "first").manual());
        first.subscribe(&["$queue/refused"], 1);
        let mut second = peer.open(Options::clean(address, "second").manual());
        second.subscribe(&["$queue/refused"], 1);
        PAHO.publish(address, "$queue/refused", "job", 1, false);
        let job = first.receive();
        let nack = format!("{} 0", job.packet_id);
        first.publish("$queue/$nack", nack.as_bytes(), 1, false);
        let job = second.receive();
        assert_eq!(job.text(), "job", "{peer:?}");
        let reject = job.packet_id.to_string();
        second.publish("$queue/$reject", reject.as_bytes(), 1, false);
        let mut person = peer.subscriber(address, "person", "$queue/$dead/refused", 1);
        let dead = person.receive();
        assert_eq!((&*dead.topic, dead.text()), ("refused", "job"), "{peer:?}");
        for client in [first, second, person] {
            client.disconnect();
        }
    }
}

/// Each message comes to one of a share group; what a member that is killed
/// has not acknowledged, to the next.
#[test]
fn a_share_group_goes_on_without_a_member_that_leaves() {
    let broker = broker();
    let address = broker.address();
    for (leaving, staying) in [
        (PAHO, RUMQTTC),
        (RUMQTTC, MOSQUITTO),
        (PAHO_31, MOSQUITTO_31),
        (PAHO_5, MQTTJS_5),
        (RUMQTTC_5, PAHO),
        (PAHO, GMQTT_5),
    ] {
        for killed in [true, false] {
            let filter = "$share/group/shared/+";
            let mut leaver = leaving.open(Options::clean(address, "leaver").manual());
            assert_eq!(leaver.subscribe(&[filter], 1), [1]);
            let mut stayer = staying.subscriber(address, "stayer", filter, 1);
            let mut publisher = PAHO.connect(address, "publisher");
            for number in 0..20 {
                let topic = format!("shared/{number}");
                publisher.publish(&topic, number.to_string().as_bytes(), 1, false);
            }
            // Ten each, and the leaver acknowledges none.
            for _ in 0..10 {
                leaver.receive();
            }
            match killed {
                true => leaver.kill(),
                false => leaver.disconnect(),
            }
            let mut numbers: Vec<u32> = (0..20)
                .map(|_| stayer.receive().text().parse().expect("a number"))
                .collect();
            numbers.sort_unstable();
            assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{leaving:?}");
            publisher.publish("shared/last", b"20", 1, false);
            assert_eq!(stayer.receive().text(), "20");
            stayer.disconnect();
            publisher.disconnect();
            until("the group is gone", || broker.subscriptions_len() == 0);
        }
    }
}

/// At QoS 0 a job is done once it is written to the socket: what a member that
/// does not read has not been written goes to the next when it is gone.
#[test]
fn jobs_of_qos_0_that_were_not_written_come_to_the_next_member() {
    const JOBS: usize = 16; // prefetch
    let broker = broker_with(|config| {
        config.limits.packet_bytes_max = 32 << 20;
        config.limits.outbox_bytes_max = 64 << 20;
    });
    let address = broker.address();
    for version in [Version::V31, Version::V311] {
        let mut deaf = Raw::connect(address, version, "deaf");
        for filter in ["clog", "$queue/small"] {
            deaf.send(&raw::subscribe(1, filter, 0));
            assert_eq!(deaf.packet(), [0x90, 3, 0, 1, 0]);
        }
        let mut producer = Raw::connect(address, version, "producer");
        // Many times what the sockets hold: what comes behind it is not written.
        producer.send(&raw::publish("clog", &vec![0; 30 << 20], 0, 0));
        producer.fence();
        for number in 0..JOBS {
            let job = number.to_string();
            producer.send(&raw::publish("$queue/small", job.as_bytes(), 1, 1));
            assert_eq!(producer.packet(), [0x40, 2, 0, 1]);
        }
        // The broker hears from it, and still writes nothing to it.
        for _ in 0..20 {
            deaf.send(&[0xC0, 0]);
            producer.fence();
        }
        let mut living = PAHO.subscriber(address, "living", "$queue/small", 1);
        drop(deaf);
        for number in 0..JOBS {
            assert_eq!(living.receive().text(), number.to_string(), "{version:?}");
        }
        living.disconnect();
    }
}
