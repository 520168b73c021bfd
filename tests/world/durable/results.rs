//! A result is stored and its job settled, or neither: whenever the broker
//! goes.

use super::queues::payloads_of;
use super::*;
use rotamq::store::twin::Fault;

const JOBS: usize = 6;

/// A worker with so many jobs in hand.
fn worker(world: &mut World, qos: u8) -> (C, Vec<Message>) {
    let w = world.connect("w").clean(false).go();
    world.subscribe(w, "$queue/jobs", qos);
    let p = world.connect("p").go();
    for job in 0..JOBS {
        world.publish(p, "$queue/jobs", &job.to_string(), 1);
    }
    world.disconnect(p);
    let jobs = world.messages(w);
    assert_eq!(jobs.len(), JOBS);
    (w, jobs)
}

/// The result of a job says which; the packet id.
fn bring(world: &mut World, w: C, job: &Message, qos: u8) -> u16 {
    let topic = format!("$settles/{}/$queue/results", job.id);
    world.send_publish(w, &topic, &job.payload, qos, false)
}

#[test]
fn a_settled_job_stays_settled_and_its_result_is_there_once() {
    for job_qos in 1..=2 {
        for qos in 1..=2 {
            through_each_end(|mut world, end| {
                let (w, jobs) = worker(&mut world, job_qos);
                let mut ids = Vec::new();
                for job in &jobs[..3] {
                    let id = bring(&mut world, w, job, qos);
                    let answer = match qos {
                        1 => Got::Puback(id),
                        _ => Got::Pubrec(id),
                    };
                    world.expect(w, answer);
                    ids.push(id);
                }
                end(&mut world);
                let w = world.back("w");
                // At QoS 2 it still has the others, and is asked to release
                // those that it settled.
                let mut payloads = Vec::new();
                for got in world.receive(w) {
                    match got {
                        Got::Publish(job) => {
                            world.acknowledge(w, &job);
                            payloads.push(job.payload);
                        }
                        Got::Pubrel(id) if job_qos == 2 => {
                            assert!(jobs[..3].iter().any(|job| job.id == id));
                            world.send(w, &pubcomp(id));
                        }
                        other => panic!("{other:?}"),
                    }
                }
                assert_eq!(payloads, ["3", "4", "5"]);
                if qos == 2 {
                    // What it sends again is no other result.
                    for (job, id) in jobs.iter().zip(ids) {
                        let topic = format!("$settles/{}/$queue/results", job.id);
                        world.send(w, &duplicate(publish(&topic, &job.payload, 2, id)));
                        world.expect(w, Got::Pubrec(id));
                        world.send(w, &pubrel(id));
                        world.expect(w, Got::Pubcomp(id));
                    }
                }
                end(&mut world);
                assert_eq!(payloads_of(&mut world, "$queue/results"), ["0", "1", "2"]);
                assert_eq!(payloads_of(&mut world, "$queue/jobs"), [""; 0]);
            });
        }
    }
}

#[test]
fn nobody_sees_a_result_before_its_job_is_settled_for_good() {
    for version in VERSIONS {
        for qos in 0..=2 {
            let mut world = World::new().stored(&Twin::new());
            world.version = version;
            let s = world.connect("s").go();
            world.subscribe(s, "results", 2);
            let (w, jobs) = worker(&mut world, 1);
            world.commit().expect("the disk is well");
            world.commits = Commits::ByHand;
            let topic = format!("$settles/{}/results", jobs[0].id);
            world.send_publish(w, &topic, "result", qos, false);
            assert_eq!(world.receive(s), []);
            world.commit().expect("the disk is well");
            assert_eq!(world.payloads(s), ["result"]);
        }
    }
}

#[test]
fn a_result_is_stored_as_its_job_was() {
    let careless = |config: &mut Config| {
        config.queue.push(QueueSettings {
            durability: Some(Durability::Memory),
            ..queue("results")
        });
    };
    through_each_end_with(careless, |mut world, end| {
        let (w, jobs) = worker(&mut world, 1);
        let id = bring(&mut world, w, &jobs[0], 1);
        world.expect(w, Got::Puback(id));
        end(&mut world);
        assert_eq!(payloads_of(&mut world, "$queue/results"), ["0"]);
    });
}

/// Results are brought while the disk stops at its `nth` operation from then
/// on; whether it came to that.
fn cut_at(
    nth: u64,
    version: Version,
    (job_qos, qos): (u8, u8),
    remains: impl Fn(&Twin) -> Twin,
) -> bool {
    let mut world = World::new().stored(&Twin::new());
    world.version = version;
    let (w, jobs) = worker(&mut world, job_qos);
    world.commit().expect("the disk is well");
    world.commits = Commits::ByHand;
    world.disk().fail_at(nth, Fault::Stopped);
    let mut sent = Vec::new();
    for pair in jobs.chunks(2) {
        for job in pair {
            sent.push((bring(&mut world, w, job, qos), job.payload.clone()));
        }
        if world.commit().is_err() {
            break;
        }
    }
    let answered: Vec<u16> = (world.receive(w).into_iter())
        .map(|got| match got {
            Got::Puback(id) | Got::Pubrec(id) => id,
            other => panic!("{other:?}"),
        })
        .collect();
    let has_stopped = world.core.store().failure().is_some();
    assert!(has_stopped || answered.len() == JOBS);

    let disk = remains(world.disk());
    world.commits = Commits::AtOnce;
    world.restart_as(&disk);
    let w = world.back("w");
    let mut left = Vec::new();
    for got in world.receive(w) {
        match got {
            Got::Publish(job) => {
                world.acknowledge(w, &job);
                left.push(job.payload);
            }
            Got::Pubrel(id) => world.send(w, &pubcomp(id)),
            other => panic!("{other:?}"),
        }
    }
    let results = payloads_of(&mut world, "$queue/results");
    for job in &jobs {
        let count = |all: &[String]| {
            all.iter()
                .filter(|payload| **payload == job.payload)
                .count()
        };
        let (results, left) = (count(&results), count(&left));
        assert_eq!(results + left, 1, "job {} at {nth}", job.payload);
        let mut of_job = sent.iter().filter(|(_, payload)| *payload == job.payload);
        let is_answered = of_job.any(|(id, _)| answered.contains(id));
        assert!(results == 1 || !is_answered, "job {} at {nth}", job.payload);
    }
    has_stopped
}

#[test]
fn a_power_cut_leaves_the_job_or_its_result() {
    for version in [Version::V3_1_1, Version::V5] {
        for qos in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            for seed in 0..3 {
                let mut nth = 1;
                while cut_at(nth, version, qos, |disk| match seed {
                    0 => disk.cut(),
                    1 => disk.kill(),
                    seed => disk.cut_with(seed << 20 | nth),
                }) {
                    nth += 1;
                }
                assert!(nth > 3);
            }
        }
    }
}
