//! Storing at its edges: between two commits, two threads or two runs.

use super::*;
use rotamq::config::{Durability, SessionFull};
use rotamq::store::twin::Twin;

/// All that may be written now, without a commit.
fn writable(world: &mut World, link: &mut Link) -> Vec<u8> {
    let mut writing = Outbox::default();
    world.core.exchange(
        &mut world.worker,
        link,
        &mut writing,
        None,
        false,
        world.now,
    );
    let store = world.core.store();
    writing.open_gates(|receipt| store.has(receipt));
    let mut pieces = [IoSlice::new(&[]); 8];
    let count = writing.pieces(&mut pieces);
    pieces[..count]
        .iter()
        .flat_map(|piece| piece.to_vec())
        .collect()
}

fn restarted(disk: &Twin, configure: impl FnOnce(&mut Config)) -> World {
    let mut world = World::seeded(7, configure);
    world.now = Time::ZERO + secs(100);
    world.stored(disk)
}

#[test]
fn connack_waits_until_the_session_before_is_discarded() {
    let disk = Twin::new();
    let mut world = World::new().stored(&disk);
    let first = world.connect("c").clean(false).go();
    world.subscribe(first, "t", 1);
    world.disconnect(first);
    let mut link = world.connect("c").clean(true).unseen();
    let written = writable(&mut world, &mut link);
    assert!(written.is_empty(), "before a commit: {written:x?}");
}

#[test]
fn a_group_that_becomes_a_stored_one_with_jobs_in_hand() {
    let disk = Twin::new();
    let mut world = World::new().stored(&disk);
    let (clean, publisher) = (world.connect("clean").go(), world.connect("p").go());
    world.subscribe(clean, "$share/g/t", 1);
    world.publish(publisher, "t", "m", 1);
    let kept = world.connect("kept").clean(false).go();
    world.subscribe(kept, "$share/g/t", 1);
    assert_eq!(world.work(clean).payload, "m");
}

#[test]
fn a_queue_of_mixed_sizes_after_a_restart() {
    let disk = Twin::new();
    let configure = |config: &mut Config| {
        config.limits.inflight_max = 1000;
        config.queues.default.prefetch = 1000;
    };
    let mut world = World::with(configure);
    let settings = Settings {
        log_bytes_max: 64 << 10,
        free_bytes_min: 0,
    };
    let (store, _) = Store::open_with_segments(Arc::new(disk.clone()), settings, 16 << 10).unwrap();
    world.core = world.core.with_store(store, true, world.now).unwrap().0;
    world.worker = Worker::new(&world.core);
    let publisher = world.connect("p").go();
    let large = "x".repeat(2000);
    for n in 0..200 {
        let payload = if n % 2 == 0 { &large[..] } else { "s" };
        world.publish(publisher, "$queue/q", payload, 1);
    }
    while world.core.store().move_oldest().unwrap() {}
    world.drive();
    // The small ones go, the large ones stay.
    let mut worker = world.connect("w").clean(false).go();
    world.subscribe(worker, "$queue/q", 1);
    for job in world.messages(worker) {
        if job.payload == "s" {
            world.acknowledge(worker, &job);
        }
    }
    world.disconnect(worker);
    for _ in 0..8 {
        world.drive();
        world.core.store().move_oldest().unwrap();
    }
    world.core.store().close().unwrap();
    let mut world = World::seeded(7, configure);
    world.now = Time::ZERO + secs(100);
    let (store, _) = Store::open_with_segments(Arc::new(disk.clone()), settings, 16 << 10).unwrap();
    world.core = world.core.with_store(store, true, world.now).unwrap().0;
    world.worker = Worker::new(&world.core);
    worker = world.connect("w").clean(false).go();
    let mut done = 0;
    while let Some(got) = world.take(worker) {
        if let Got::Publish(job) = got {
            world.acknowledge(worker, &job);
            done += 1;
        }
    }
    assert!(done >= 100, "{done}");
}

#[test]
fn a_queue_in_memory_beside_one_on_disk() {
    let configure = |config: &mut Config| {
        let (memory, synced) = (Durability::Memory, Durability::Synced);
        for (name, durability) in [("a", memory), ("b", synced), ("c", memory)] {
            let mut queue = queue(name);
            queue.filters = vec!["t".into()];
            queue.durability = Some(durability);
            config.queue.push(queue);
        }
    };
    let disk = Twin::new();
    let mut world = World::with(configure).stored(&disk);
    let publisher = world.connect("p").go();
    world.publish(publisher, "other", "the message with id 0", 1);
    world.publish(publisher, "t", "m", 1);
    let mut world = restarted(&disk.cut(), configure);
    let worker = world.connect("w").go();
    world.subscribe(worker, "$queue/b", 1);
    assert_eq!(world.payloads(worker), ["m"]);
}

#[test]
fn an_id_that_waits_for_pubcomp_is_not_given_again_after_a_restart() {
    let disk = Twin::new();
    let mut world = World::new().stored(&disk);
    let (client, publisher) = (
        world.connect("c").clean(false).go(),
        world.connect("p").go(),
    );
    world.subscribe(client, "t", 2);
    world.publish(publisher, "t", "m", 2);
    let Some(Got::Publish(message)) = world.take(client) else {
        panic!()
    };
    world.send(client, &pubrec(message.id));
    let mut world = restarted(&disk.cut(), |_| ());
    let client = world.connect("c").clean(false).go();
    world.expect(client, Got::Pubrel(message.id));
    let publisher = world.connect("p").go();
    // The client does not answer that PUBREL, but all else.
    for n in 0..66_000 {
        world.publish(publisher, "t", "n", 1);
        let Some(Got::Publish(next)) = world.take(client) else {
            panic!()
        };
        assert_ne!(next.id, message.id, "after {n}");
        world.acknowledge(client, &next);
    }
}

#[test]
fn what_was_acknowledged_just_now_is_not_read_again() {
    let configure = |config: &mut Config| {
        config.limits.session_messages_max = 2;
        config.session.full = SessionFull::DropOldest;
    };
    let disk = Twin::new();
    let mut world = World::with(configure).stored(&disk);
    let (client, publisher) = (
        world.connect("c").clean(false).go(),
        world.connect("p").go(),
    );
    world.subscribe(client, "t", 1);
    world.publish(publisher, "t", "m1", 1);
    world.publish(publisher, "t", "m2", 1);
    let messages = world.messages(client);
    // Acknowledged, and gone, before anything is committed.
    world.handle(client, &[puback(messages[0].id)]).unwrap();
    let link = world.clients[client.0].link.take().unwrap();
    world
        .core
        .disconnect(&mut world.worker, link, &Stop::Lost, world.now);
    let packets = [publish("t", "m3", 1, 1001), publish("t", "m4", 1, 1002)];
    world.handle(publisher, &packets).unwrap();
    world.drive();
    let client = world.connect("c").clean(false).go();
    let mut got = Vec::new();
    while let Some(taken) = world.take(client) {
        let Got::Publish(message) = taken else {
            continue;
        };
        got.push(message.payload.clone());
        world.acknowledge(client, &message);
    }
    // "m2" may have gone for "m4", as there is room for two.
    assert!(got.ends_with(&["m3".into(), "m4".into()]), "{got:?}");
}

#[test]
fn a_damaged_record_of_a_queue_costs_no_jobs() {
    let disk = Twin::new();
    let mut world = World::new().stored(&disk);
    let publisher = world.connect("p").go();
    world.publish(publisher, "$queue/some-name", "m", 1);
    world.core.store().close().unwrap();
    let (name, at) = (0..10)
        .map(|number| format!("log-{number:010}"))
        .find_map(|name| {
            let bytes = disk.bytes(&name)?;
            let at = bytes
                .windows(16)
                .position(|window| window == b"$queue/some-name")?;
            Some((name, at))
        })
        .expect("it is in the log");
    disk.flip(&name, at as u64, 1);
    let settings = Settings {
        log_bytes_max: 4 << 20,
        free_bytes_min: 0,
    };
    let rows = |disk: &Twin| {
        let (store, report) = Store::open(Arc::new(disk.clone()), settings).unwrap();
        let rows: u64 = store.lists().iter().map(|(_, summary)| summary.rows).sum();
        (store, rows, report.damage.len())
    };
    let (store, before, damage) = rows(&disk.kill());
    drop(store);
    let (store, report) = Store::open(Arc::new(disk.clone()), settings).unwrap();
    let world = World::seeded(7, |_| ());
    let is_whole = report.damage.is_empty();
    let (core, restored) = world.core.with_store(store, is_whole, world.now).unwrap();
    core.store().close().unwrap();
    let (_, after, _) = rows(&disk.kill());
    assert_eq!((before, after), (1, 1), "{damage} damaged, {restored}");
}

#[test]
fn a_queue_that_was_used_just_now_outlives_a_restart() {
    let configure = |config: &mut Config| config.queues.auto_delete_after = secs(600);
    let disk = Twin::new();
    let mut world = World::with(configure).stored(&disk);
    let publisher = world.connect("p").go();
    for _ in 0..30 {
        world.advance(secs(100));
        world.publish(publisher, "$queue/q", "m", 1);
    }
    let now = world.now;
    let mut world = World::seeded(7, configure);
    world.now = now;
    let mut world = world.stored(&disk.cut());
    world.advance(secs(5));
    let worker = world.connect("w").go();
    world.subscribe(worker, "$queue/q", 1);
    assert!(!world.payloads(worker).is_empty(), "{:?}", world.counts());
}

#[test]
fn nothing_is_said_before_connack() {
    let disk = Twin::new();
    let mut world = World::new().stored(&disk);
    world.version = Version::V5;
    let mut link = world.connect("c").clean(false).unseen();
    let written = writable(&mut world, &mut link);
    assert!(written.is_empty());
    // The disk fails, or the session is taken over, before CONNACK is out.
    let close = Close::new(ReasonCode::UnspecifiedError, "the disk failed");
    let stop = Stop::Closed(close);
    assert_eq!(
        link.last_word(&stop),
        None,
        "DISCONNECT would be the first packet"
    );
}

#[test]
fn clearing_a_retained_message_frees_a_full_disk() {
    let disk = Twin::new();
    let mut world = World::new();
    let settings = Settings {
        log_bytes_max: 4 << 20,
        free_bytes_min: 1 << 20,
    };
    let (store, _) = Store::open(Arc::new(disk.clone()), settings).unwrap();
    world.core = world.core.with_store(store, true, world.now).unwrap().0;
    world.worker = Worker::new(&world.core);
    world.version = Version::V5;
    let publisher = world.connect("p").go();
    world.publish_with(publisher, "t", "m", 1, true);
    disk.set_free_bytes(1000);
    world.core.store().watch_free();
    let id = world.send_publish(publisher, "t", "", 1, true);
    let got = world.receive(publisher);
    assert!(!matches!(got[..], [Got::Refused(..)]), "{id}: {got:?}");
}

#[test]
fn two_first_publishers_of_a_queue_are_both_stored() {
    let disk = Twin::new();
    let world = World::new().stored(&disk);
    let core = &world.core;
    const QUEUES: usize = 3000;
    let barrier = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let barrier = &barrier;
            scope.spawn(move || {
                let mut worker = Worker::new(core);
                let now = Time::ZERO + secs(2);
                let name = format!("p{thread}");
                let connect = Connect {
                    version: Version::V3_1_1,
                    clean_start: true,
                    keep_alive_secs: 0,
                    properties: Properties::EMPTY,
                    client_id: &name,
                    will: None,
                    user_name: None,
                    password: None,
                };
                let Ok(Admission::Admitted(mut link)) = core.connect(&mut worker, &connect, now)
                else {
                    panic!()
                };
                for n in 0..QUEUES {
                    barrier.wait();
                    let topic = format!("$queue/q{n}");
                    core.handle(&mut worker, &mut link, &publish(&topic, "m", 1, 1), now)
                        .unwrap();
                    worker.drop_answers();
                }
            });
        }
    });
    core.store().close().unwrap();
    let settings = Settings {
        log_bytes_max: 4 << 20,
        free_bytes_min: 0,
    };
    let (store, _) = Store::open(Arc::new(disk.cut()), settings).unwrap();
    let rows: u64 = store.lists().iter().map(|(_, summary)| summary.rows).sum();
    assert_eq!(rows as usize, 2 * QUEUES);
}

/// Messages are read back while others are just being committed.
#[test]
fn what_is_just_being_stored_is_not_lost() {
    let disk = Twin::new();
    let configure = |config: &mut Config| config.limits.inflight_max = 8;
    let world = World::with(configure).stored(&disk);
    let core = &world.core;
    let done = std::sync::atomic::AtomicBool::new(false);
    let now = Time::ZERO + secs(2);
    let connect = |worker: &mut Worker, name: &str, clean_start| {
        let connect = Connect {
            version: Version::V3_1_1,
            clean_start,
            keep_alive_secs: 0,
            properties: Properties::EMPTY,
            client_id: name,
            will: None,
            user_name: None,
            password: None,
        };
        match core.connect(worker, &connect, now) {
            Ok(Admission::Admitted(link)) => link,
            _ => panic!(),
        }
    };
    let seconds = std::env::var("REVIEW_SECONDS").map_or(5, |text| text.parse().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                core.store().commit(false).unwrap();
            }
        });
        let mut reader = Worker::new(core);
        let mut link = connect(&mut reader, "reader", false);
        core.handle(&mut reader, &mut link, &subscribe(1, &[("t", 1)]), now)
            .unwrap();
        let done = &done;
        scope.spawn(move || {
            let (mut writing, mut stream) = (Outbox::default(), Vec::new());
            while !done.load(Ordering::Relaxed) {
                core.exchange(&mut reader, &mut link, &mut writing, None, false, now);
                writing.open_gates(|receipt| core.store().has(receipt));
                let mut pieces = [IoSlice::new(&[]); 8];
                let count = writing.pieces(&mut pieces);
                let before = stream.len();
                pieces[..count]
                    .iter()
                    .for_each(|piece| stream.extend_from_slice(piece));
                writing.advance(stream.len() - before);
                let mut at = 0;
                while let Some((packet, len)) =
                    decode(&stream[at..], Version::V3_1_1, usize::MAX).unwrap()
                {
                    at += len;
                    if let Packet::Publish(publish) = packet {
                        let ack = puback(publish.packet_id.unwrap().get());
                        core.handle(&mut reader, &mut link, &ack, now).unwrap();
                    }
                }
                stream.drain(..at);
            }
        });
        let mut publisher = Worker::new(core);
        let mut link = connect(&mut publisher, "publisher", true);
        let start = std::time::Instant::now();
        while start.elapsed().as_secs() < seconds {
            for n in 0..3000 {
                core.handle(&mut publisher, &mut link, &publish("t", "m", 1, 1), now)
                    .unwrap();
                publisher.drop_answers();
                for _ in 0..if n > 300 { 300 } else { 0 } {
                    std::hint::spin_loop();
                }
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        done.store(true, Ordering::Relaxed);
    });
    let counts = world.counts();
    assert_eq!(counts.lost_damaged, 0, "{counts:?}");
}

#[test]
fn a_dead_letter_is_stored_as_safely_as_its_job_was() {
    let configure = |config: &mut Config| {
        config.store.durability = Durability::Memory;
        let mut queue = queue("q");
        queue.durability = Some(Durability::Synced);
        config.queue.push(queue);
    };
    let disk = Twin::new();
    let mut world = World::with(configure).stored(&disk);
    let (publisher, worker) = (world.connect("p").go(), world.connect("w").go());
    world.publish(publisher, "$queue/other", "the message with id 0", 1);
    world.publish(publisher, "$queue/q", "m", 1);
    world.subscribe(worker, "$queue/q", 1);
    let job = world.messages(worker).remove(0);
    world.control(worker, "reject", &job.id.to_string());
    let mut world = restarted(&disk.cut(), configure);
    let worker = world.connect("w").go();
    world.subscribe(worker, "$queue/$dead/q", 1);
    world.subscribe(worker, "$queue/q", 1);
    assert_eq!(world.payloads(worker), ["m"]);
}

#[test]
fn what_is_dropped_for_a_newer_one_is_counted() {
    let configure = |config: &mut Config| {
        config.limits.session_bytes_max = 4000;
        config.limits.inflight_max = 1;
        config.session.full = SessionFull::DropOldest;
    };
    for is_stored in [false, true] {
        let mut world = World::with(configure);
        if is_stored {
            world = world.stored(&Twin::new());
        }
        let (client, publisher) = (
            world.connect("c").clean(false).go(),
            world.connect("p").go(),
        );
        world.subscribe(client, "t", 1);
        world.disconnect(client);
        for n in 0..300 {
            world.publish(
                publisher,
                "t",
                if n % 50 == 49 { LARGE.as_str() } else { "s" },
                1,
            );
        }
        let client = world.connect("c").clean(false).go();
        let mut got = 0;
        while let Some(Got::Publish(message)) = world.take(client) {
            got += 1;
            world.acknowledge(client, &message);
        }
        assert_eq!(
            got + world.counts().dropped_oldest as usize,
            300,
            "stored: {is_stored}"
        );
    }
}

static LARGE: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| "x".repeat(1500));

#[test]
fn a_queue_that_waits_for_the_disk_sets_one_timer() {
    let configure = |config: &mut Config| {
        config.limits.inflight_max = 5000;
        config.queues.default.prefetch = 5000;
    };
    let disk = Twin::new();
    let mut world = World::with(configure).stored(&disk);
    let (publisher, worker) = (world.connect("p").go(), world.connect("w").go());
    world.subscribe(worker, "$queue/q", 1);
    for _ in 0..4096 {
        world.publish(publisher, "$queue/q", "m", 1);
    }
    let jobs = world.messages(worker);
    assert_eq!(jobs.len(), 4096);
    // From here on the disk is slow: nothing is committed.
    let job = || publish("$queue/q", "m", 1, 1);
    let before = world.timers();
    world.handle(publisher, &vec![job(); 100]).unwrap();
    for done in &jobs[..100] {
        world.handle(worker, &[puback(done.id)]).unwrap();
    }
    world.handle(publisher, &vec![job(); 1000]).unwrap();
    let first = world.timers() - before;
    world.now = world.now + secs(1);
    world.core.handle_timeout(&mut world.worker, world.now);
    let then = world.timers() - before;
    assert!(
        first <= 1 && then <= 1,
        "{first} timers, and {then} after they have fired"
    );
}

#[test]
fn however_long_the_store_takes_to_read_clients_have_time_to_come_back() {
    let disk = Twin::new();
    let mut world = World::new().stored(&disk);
    world.version = Version::V5;
    let ten = Property::SessionExpiryInterval(10);
    let connecting = world.connect("c").clean(false).property(ten);
    connecting.will("w", "lost", 1, false).go();
    let mut world = restarted(&disk.cut(), |_| ());
    world.version = Version::V5;
    // The listeners open only now.
    let since = world.now;
    world.now = since + secs(60);
    world.core.welcome_back(since, world.now);
    let watcher = world.connect("watcher").go();
    world.subscribe(watcher, "w", 1);
    world.advance(secs(5));
    assert!(world.messages(watcher).is_empty(), "it had no time");
    let (_, present) = world.connect("c").clean(false).property(ten).go_present();
    assert!(present, "the session ended before its client could be back");
    world.advance(secs(60));
    assert!(world.messages(watcher).is_empty(), "the client is back");
}
