//! The same clients from several threads at a time: they take each other's
//! sessions over, come and go, and nothing stays behind.

use super::*;
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

#[test]
fn whoever_takes_over_whom_nothing_stays_behind() {
    let mut world = World::new();
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
