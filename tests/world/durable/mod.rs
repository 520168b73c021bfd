//! What outlives the broker: each story is told to its middle, the broker goes,
//! and another one goes on with what is on the disk.
//!
//! | file | tells of |
//! |---|---|
//! | `waiting` | what waits until it is stored, and what does not |
//! | `sessions` | subscriptions, messages, packet ids, retained messages |
//! | `wills` | wills |
//! | `queues` | work queues and share groups |
//! | `failing` | what jobs ask for, and what they went through |
//! | `receipts` | what producers are told of their jobs |
//! | `results` | results that settle jobs |
//! | `history` | whatever clients do, cut at any moment |

mod failing;
mod history;
mod queues;
mod receipts;
mod results;
mod sessions;
mod waiting;
mod wills;

use super::*;
use rotamq::journal::tag;

/// How a broker goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The power fails: only what was synced is left.
    PowerCut,
    /// Its process is killed: what was written is left.
    Killed,
    /// It stops in order.
    Stopped,
}

const ENDS: [End; 3] = [End::PowerCut, End::Killed, End::Stopped];

impl World {
    /// The broker goes, and another one starts.
    fn end(&mut self, end: End) {
        match end {
            End::PowerCut => self.restart(),
            End::Killed => {
                let disk = self.disk().kill();
                self.restart_as(&disk);
            }
            End::Stopped => self.stop_and_start(),
        }
    }

    /// The client comes back to its session.
    fn back(&mut self, id: &str) -> C {
        let tells = self.tells_present();
        let (client, present) = self.connect(id).clean(false).go_present();
        assert_eq!(present, tells, "the session of {id}");
        client
    }

    /// Everything that there is moves from the log to the base.
    pub(super) fn move_all(&mut self) {
        let filler = self.connect("filler").go();
        let payload = "x".repeat(1000);
        for _ in 0..3 * LOG_BYTES_MAX / 1000 {
            self.publish_with(filler, "filler", &payload, 1, true);
            while self.core.store().move_oldest().expect("the disk is well") {}
            while self.core.store().compact().expect("the disk is well") {}
        }
        self.publish_with(filler, "filler", "", 1, true);
        self.disconnect(filler);
    }

    /// How many values and lists are stored.
    fn stored_len(&self) -> (usize, usize) {
        let mut values = 0;
        let store = self.core.store();
        let scan = store.scan(&[], &mut |key, _| {
            values += usize::from(key[0] != tag::CLOCK)
        });
        scan.expect("the disk is well");
        let lists = store.lists().into_iter();
        (
            values,
            lists.filter(|(_, summary)| summary.rows > 0).count(),
        )
    }
}

/// Tells the story in each version, with each end of the broker; once more with
/// all that is stored moved to the base before it.
fn through_each_end(story: impl Fn(World, &dyn Fn(&mut World))) {
    through_each_end_with(|_| (), story);
}

fn through_each_end_with(
    configure: impl Fn(&mut Config),
    story: impl Fn(World, &dyn Fn(&mut World)),
) {
    for version in VERSIONS {
        for end in ENDS {
            for moves in [false, true] {
                let mut world = World::with(&configure).stored(&Twin::new());
                world.version = version;
                story(world, &|world| {
                    if moves {
                        world.move_all();
                    }
                    world.end(end);
                });
            }
        }
    }
}

/// In MQTT 5.
fn through_each_end_in_5(
    configure: impl Fn(&mut Config),
    story: impl Fn(World, &dyn Fn(&mut World)),
) {
    through_each_end_with(configure, |world, end| {
        if world.version == Version::V5 {
            story(world, end);
        }
    });
}

/// A client that takes its session's messages as they are now: what it got at
/// QoS 0, 1 and 2 is not answered.
fn again(message: &Message) -> Message {
    Message {
        dup: true,
        ..message.clone()
    }
}
