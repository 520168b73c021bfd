//! The same clients from several threads at a time: they take each other's
//! sessions over, come and go, and nothing stays behind.

use super::*;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::thread;

const THREADS: usize = 4;
const ROUNDS: usize = 5_000;
const IDS: [&str; 3] = ["a", "b", "c"];

/// One connection after the other; how many jobs were taken from it.
fn come_and_go(core: &Core, thread: usize) -> usize {
    let mut worker = Worker::new(core);
    let mut jobs = 0;
    for round in 0..ROUNDS {
        // Without a pattern that the threads share.
        let random = (round * THREADS + thread).wrapping_mul(0x9E37_79B9) >> 7;
        let now = Time::from_micros(1_000_000 + round as u64);
        let connect = Connect {
            version: Version::V3_1_1,
            clean_start: random.is_multiple_of(3),
            keep_alive_secs: 60,
            properties: Properties::EMPTY,
            client_id: IDS[random / 3 % IDS.len()],
            will: None,
            user_name: None,
            password: None,
        };
        let Ok(Admission::Admitted(mut link)) = core.connect(&mut worker, &connect, now) else {
            panic!("there is room");
        };
        let packets = [
            subscribe(1, &[("t/+", 1), ("$queue/jobs", 1), ("$share/g/t/+", 1)]),
            publish("$queue/jobs", "job", 1, 2),
            publish("t/1", "m", 1, 3),
            unsubscribe(4, &["t/+", "$share/g/t/+"]),
            publish("$queue/jobs", "job", 1, 5),
            subscribe(6, &[("$share/g/t/+", 1), ("u", 0)]),
        ];
        let mut writing = Outbox::default();
        for packet in &packets[..1 + random / 9 % packets.len()] {
            core.handle(&mut worker, &mut link, packet, now)
                .expect("nothing to complain of");
            if let Packet::Publish(publish) = packet {
                jobs += usize::from(publish.topic == "$queue/jobs");
            }
            let exchange = core.exchange(&mut worker, &mut link, &mut writing, None, false, now);
            worker.effects.wake_all();
            writing = Outbox::default();
            if matches!(exchange, Exchange::Closing(_)) {
                break;
            }
        }
        let stop = if random.is_multiple_of(2) {
            Stop::Lost
        } else {
            Stop::Disconnect
        };
        core.disconnect(&mut worker, link, &stop, now);
        worker.effects.wake_all();
    }
    jobs
}

/// Many lose their connections again and again.
fn that_never_give_up(config: &mut Config) {
    config.queues.default.deliveries_max = u32::MAX;
    config.queues.default.backoff_min = Duration::ZERO;
}

#[test]
fn whoever_takes_over_whom_nothing_stays_behind() {
    // Nobody does a job.
    let mut world = World::with(that_never_give_up);
    let core = &world.core;
    let jobs: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || come_and_go(core, thread)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    // Who is left is found, and takes part in everything as before.
    world.now = Time::ZERO + secs(2);
    for id in IDS {
        let a = world.connect(id).clean(false).go();
        world.receive(a);
        world.subscribe(a, "seen", 1);
        world.publish(a, "seen", "m", 0);
        let seen = world.receive(a);
        assert!(
            seen.iter()
                .any(|got| matches!(got, Got::Publish(m) if m.topic == "seen"))
        );
        world.disconnect(a);
        let a = world.connect(id).go();
        world.disconnect(a);
    }
    assert_eq!(world.core.sessions_len(), 0);
    assert_eq!(world.core.subscriptions_len(), 1, "the queue's own");
    let drain = world.connect("drain").go();
    world.subscribe(drain, "$queue/jobs", 1);
    let mut left = 0;
    while let Some(Got::Publish(message)) = world.take(drain) {
        world.acknowledge(drain, &message);
        left += 1;
    }
    assert_eq!(left, jobs, "no member has settled any");
}

const JOBS: usize = 400;
const TOLD: &str = "$queue/$with/response=$queue%2Ftold&receipt=1/jobs";

/// What the connection has been written so far, when it may be.
fn read(core: &Core, writing: &mut Outbox) -> Vec<u8> {
    let mut stream = Vec::new();
    while write(
        core,
        Commits::ByHand,
        None,
        writing,
        &mut stream,
        Waker::noop(),
    ) {
        thread::yield_now();
    }
    stream
}

/// Takes jobs, and brings their results, in a session that others take over.
fn work(core: &Core, thread: usize, is_over: &AtomicBool) {
    let mut worker = Worker::new(core);
    let mut round = 0_usize;
    while !is_over.load(Ordering::Relaxed) {
        round += 1;
        let random = (round * THREADS + thread).wrapping_mul(0x9E37_79B9) >> 7;
        let now = Time::from_micros(2_000_000 + round as u64);
        let connect = Connect {
            version: Version::V3_1_1,
            clean_start: random.is_multiple_of(5),
            keep_alive_secs: 0,
            properties: Properties::EMPTY,
            client_id: IDS[random / 5 % 2],
            will: None,
            user_name: None,
            password: None,
        };
        let Ok(Admission::Admitted(mut link)) = core.connect(&mut worker, &connect, now) else {
            panic!("there is room");
        };
        let mut stop = Stop::Lost;
        let mut packets = vec![subscribe(1, &[("$queue/jobs", 1)])];
        let mut results = Vec::new();
        for _ in 0..1 + random % 4 {
            let handled = packets
                .drain(..)
                .try_for_each(|packet| core.handle(&mut worker, &mut link, &packet, now));
            let mut writing = Outbox::default();
            let exchange = core.exchange(&mut worker, &mut link, &mut writing, None, false, now);
            worker.effects.wake_all();
            let stream = read(core, &mut writing);
            if let Err(why) = handled {
                stop = why;
                break;
            }
            if matches!(exchange, Exchange::Closing(_)) {
                break;
            }
            let mut rest = &stream[..];
            results.clear();
            while let Some((packet, len)) = decode(rest, Version::V3_1_1, usize::MAX).unwrap() {
                if let Packet::Publish(job) = packet {
                    let id = job.packet_id.expect("QoS 1").get();
                    let payload = String::from_utf8(job.payload.to_vec()).expect("a number");
                    results.push((id, format!("$settles/{id}/$queue/results"), payload));
                }
                rest = &rest[len..];
            }
            let brought = results.iter();
            packets = brought
                .map(|(id, topic, payload)| publish(topic, payload, 1, *id))
                .collect();
        }
        core.disconnect(&mut worker, link, &stop, now);
        worker.effects.wake_all();
    }
}

/// How often each payload is in a queue, which is empty then.
fn drain(world: &mut World, name: &str) -> BTreeMap<String, usize> {
    let drain = world.connect("drain").go();
    world.subscribe(drain, name, 1);
    let mut counts = BTreeMap::new();
    while let Some(Got::Publish(message)) = world.take(drain) {
        world.acknowledge(drain, &message);
        *counts.entry(message.payload).or_default() += 1;
    }
    world.disconnect(drain);
    counts
}

#[test]
fn each_job_has_one_result_however_often_members_are_taken_over() {
    let mut world = World::with(that_never_give_up).stored(&Twin::new());
    let p = world.connect("p").go();
    for job in 0..JOBS {
        world.publish(p, TOLD, &job.to_string(), 1);
    }
    let disk = world.disk().clone();
    let is_over = AtomicBool::new(false);
    let snapshots = thread::scope(|scope| {
        let (core, is_over) = (&world.core, &is_over);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || work(core, thread, is_over)))
            .collect();
        let mut snapshots = Vec::new();
        let mut before = 0;
        loop {
            core.store().commit(false).expect("the disk is well");
            if disk.operations() >= before + 20 && snapshots.len() < 40 {
                before = disk.operations();
                snapshots.push(disk.kill());
            }
            if snapshots.len() == 40 {
                is_over.store(true, Ordering::Relaxed);
            }
            if threads.iter().all(thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
        threads
            .into_iter()
            .for_each(|thread| thread.join().expect("no panic"));
        snapshots
    });
    world.commit().expect("the disk is well");
    for disk in snapshots.into_iter().chain([disk.cut()]) {
        world.restart_as(&disk);
        for id in IDS {
            let gone = world.connect(id).go();
            world.disconnect(gone);
        }
        let results = drain(&mut world, "$queue/results");
        let told: usize = drain(&mut world, "$queue/told").values().sum();
        let left = drain(&mut world, "$queue/jobs");
        assert_eq!(told, results.len());
        for job in 0..JOBS {
            let job = job.to_string();
            let count = |all: &BTreeMap<String, usize>| all.get(&job).copied().unwrap_or(0);
            assert_eq!(count(&results) + count(&left), 1, "job {job}");
        }
    }
}
