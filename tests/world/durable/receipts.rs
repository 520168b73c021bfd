//! A receipt is stored with what it tells of, and comes to nobody before.

use super::queues::payloads_of;
use super::*;
use rotamq::store::twin::Fault;

const TOPIC: &str = "$queue/$with/response=replies&receipt=1/jobs";
const TO_QUEUE: &str = "$queue/$with/response=$queue%2Freplies&receipt=1/jobs";

#[test]
fn a_job_from_an_earlier_run_gives_its_receipt() {
    for qos in 1..=2 {
        through_each_end(|mut world, end| {
            let p = world.connect("p").clean(false).go();
            world.subscribe(p, "replies", 1);
            world.publish(p, TOPIC, "job", 2);
            world.disconnect(p);
            let w = world.connect("w").clean(false).go();
            world.subscribe(w, "$queue/jobs", qos);
            assert_eq!(world.messages(w).len(), 1);
            end(&mut world);
            let w = world.back("w");
            world.work(w);
            end(&mut world);
            let p = world.back("p");
            let told = world.payloads(p);
            assert_eq!(told.len(), 1);
            assert!(told[0].contains("\"outcome\":\"done\""), "{told:?}");
        });
    }
}

#[test]
fn what_expires_while_the_broker_is_away_gives_a_receipt() {
    through_each_end_in_5(
        |_| (),
        |mut world, end| {
            let p = world.connect("p").clean(false).go();
            world.subscribe(p, "replies", 1);
            let topic = topic_name("replies");
            let properties = [
                Property::MessageExpiryInterval(5),
                Property::ResponseTopic(topic),
                Property::UserProperty(("receipt", "1")),
            ];
            let id = world.send_with(p, ("$queue/jobs", "job"), 1, false, &properties);
            world.expect(p, Got::Puback(id));
            world.now = world.now + secs(10);
            end(&mut world);
            let p = world.back("p");
            world.advance(secs(1));
            let told = world.payloads(p);
            assert_eq!(told.len(), 1);
            assert!(told[0].contains("\"outcome\":\"expired\""), "{told:?}");
        },
    );
}

#[test]
fn nobody_is_told_before_it_is_stored() {
    for version in VERSIONS {
        for ends_by in ["PUBACK", "reject", "result"] {
            let mut world = World::new().stored(&Twin::new());
            world.version = version;
            let p = world.connect("p").go();
            world.subscribe(p, "replies", 1);
            let w = world.connect("w").go();
            world.subscribe(w, "$queue/jobs", 1);
            world.publish(p, TOPIC, "job", 1);
            let job = world.messages(w).remove(0);
            world.commits = Commits::ByHand;
            let (topic, payload) = match ends_by {
                "PUBACK" => (String::new(), String::new()),
                "reject" => ("$queue/$reject".into(), job.id.to_string()),
                _ => (format!("$settles/{}/results", job.id), "result".into()),
            };
            match ends_by {
                "PUBACK" => world.send(w, &puback(job.id)),
                _ => _ = world.send_publish(w, &topic, &payload, 1, false),
            }
            world.advance(secs(1));
            assert_eq!(world.receive(p), [], "{ends_by}");
            world.commit().expect("the disk is well");
            assert_eq!(world.messages(p).len(), 1, "{ends_by}");
        }
    }
}

/// Jobs are settled while the disk stops at its `nth` operation from then on;
/// whether it came to that.
fn cut_at(nth: u64, remains: impl Fn(&Twin) -> Twin) -> bool {
    const JOBS: usize = 4;
    let mut world = World::new().stored(&Twin::new());
    let p = world.connect("p").go();
    let w = world.connect("w").go();
    world.subscribe(w, "$queue/jobs", 1);
    for job in 0..JOBS {
        world.publish(p, TO_QUEUE, &job.to_string(), 1);
    }
    world.commits = Commits::ByHand;
    world.disk().fail_at(nth, Fault::Stopped);
    for job in world.messages(w) {
        world.send(w, &puback(job.id));
        if world.commit().is_err() {
            break;
        }
    }
    let has_stopped = world.core.store().failure().is_some();
    let disk = remains(world.disk());
    world.commits = Commits::AtOnce;
    world.restart_as(&disk);
    let told = payloads_of(&mut world, "$queue/replies").len();
    let left = payloads_of(&mut world, "$queue/jobs").len();
    assert_eq!(told + left, JOBS, "at {nth}");
    assert!(has_stopped || left == 0);
    has_stopped
}

#[test]
fn a_power_cut_leaves_the_job_or_its_receipt() {
    for seed in 0..6 {
        let mut nth = 1;
        while cut_at(nth, |disk| match seed {
            0 => disk.cut(),
            1 => disk.kill(),
            seed => disk.cut_with(seed << 20 | nth),
        }) {
            nth += 1;
        }
        assert!(nth > 3);
    }
}
