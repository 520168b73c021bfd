//! Connections that subscribe and unsubscribe all the time, beside the
//! traffic.
//!
//! On a thread and sockets of their own. They subscribe to nothing that is
//! published.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::Job;
use super::frame::Frame;
use super::net::{Client, Conversation, Net, Silence, append_subscribe, is_granted};
use crate::message::{PacketId, Qos};
use crate::protocol::{self, Packet, Properties, Unsubscribe, Version};

/// So many clients take turns.
pub const CLIENTS: usize = 10;
/// A broker that leaves so many changes of one client unanswered gets no more
/// of it until it has answered some.
const UNANSWERED_MAX: u64 = 1000;
/// How far apart the changes that are due at one moment may have been.
const STEP: Duration = Duration::from_millis(1);

/// How many SUBSCRIBEs and UNSUBSCRIBEs the broker has answered so far.
pub struct Answered(AtomicU64);

impl Answered {
    pub fn so_far(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Does `work` while the job's churn goes on, if it has one.
///
/// # Errors
/// Those of `work`; the broker refuses a change, or closes a connection.
pub fn beside<T>(
    job: &Job,
    work: impl FnOnce(&Answered) -> Result<T, String>,
) -> Result<T, String> {
    let answered = Answered(AtomicU64::new(0));
    if job.churn == 0.0 {
        return work(&answered);
    }
    let mut churn = Churn::connect(job, &answered)?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let thread = scope.spawn(|| churn.run(&ended));
        let result = work(&answered);
        ended.store(true, Relaxed);
        thread.join().map_err(|_| "a thread has panicked")??;
        result
    })
}

struct Churn<'a> {
    net: Net,
    run: &'a str,
    rate: f64,
    answers: Answers<'a>,
}

/// What comes back.
struct Answers<'a> {
    version: Version,
    of_client: Vec<u64>,
    all: &'a Answered,
}

impl<'a> Churn<'a> {
    fn connect(job: &'a Job, answered: &'a Answered) -> Result<Churn<'a>, String> {
        let mut net = Net::new(&job.target, 0)?;
        let clients = (0..CLIENTS).map(|index| Client {
            clean: true,
            ..job.client("c", index, Vec::new())
        });
        net.connect(clients, &mut Silence, |_| Ok(()))?;
        Ok(Churn {
            net,
            run: &job.run,
            rate: job.churn,
            answers: Answers {
                version: job.target.version,
                of_client: vec![0; CLIENTS],
                all: answered,
            },
        })
    }

    fn run(&mut self, ended: &AtomicBool) -> Result<(), String> {
        let start = Instant::now();
        let mut made = 0;
        let mut out = Vec::new();
        while !ended.load(Relaxed) {
            let due = (start.elapsed().as_secs_f64() * self.rate) as u64;
            while made < due {
                let client = (made % CLIENTS as u64) as usize;
                let number = made / CLIENTS as u64;
                if number.saturating_sub(self.answers.of_client[client]) >= UNANSWERED_MAX {
                    break;
                }
                append_change(self.run, client, number, self.answers.version, &mut out);
                self.net.write(client, &out)?;
                out.clear();
                made += 1;
            }
            self.net.poll(STEP, &mut self.answers)?;
        }
        self.net.disconnect(0..CLIENTS);
        Ok(())
    }
}

/// Appends the change of this `number` of one client: it subscribes to a
/// filter, then it unsubscribes from it, then comes the next one.
fn append_change(run: &str, client: usize, number: u64, version: Version, out: &mut Vec<u8>) {
    // Of the 65,535 that there are, 1,000 are in use at most.
    let packet_id = (number % u64::from(u16::MAX)) as u16 + 1;
    let packet_id = PacketId::new(packet_id).expect("it is above zero");
    let filter = filter(run, client, number / 2);
    if number.is_multiple_of(2) {
        append_subscribe(packet_id, &[filter], Qos::AtMostOnce, version, out);
    } else {
        let unsubscribe = Unsubscribe {
            packet_id,
            properties: Properties::EMPTY,
            filters: vec![&filter],
        };
        protocol::encode(&Packet::Unsubscribe(unsubscribe), version, out);
    }
}

/// Each filter once; every other one has a wildcard. No topic of the traffic
/// has so many levels.
fn filter(run: &str, client: usize, number: u64) -> String {
    match number % 2 {
        0 => format!("bench/{run}/churn/{client}/{number}/state"),
        _ => format!("bench/{run}/churn/{client}/+/{number}"),
    }
}

impl Conversation for Answers<'_> {
    fn frame(&mut self, link: usize, frame: Frame<'_>, _: &mut Vec<u8>) -> Result<(), String> {
        let answer = match frame {
            Frame::Other(packet) => is_granted(packet, self.version)?,
            _ => false,
        };
        if !answer {
            return Err(format!(
                "the broker sent {frame:?} to a client that subscribes to nothing that comes"
            ));
        }
        self.of_client[link] += 1;
        self.all.0.fetch_add(1, Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribes_and_unsubscribes_in_turns_with_a_wildcard_in_half() {
        let mut seen = Vec::new();
        for number in 0..4 {
            let mut out = Vec::new();
            append_change("r", 3, number, Version::V5, &mut out);
            seen.push(match protocol::decode(&out, Version::V5, usize::MAX) {
                Ok(Some((Packet::Subscribe(one), _))) => format!("+ {}", one.filters[0].0),
                Ok(Some((Packet::Unsubscribe(one), _))) => format!("- {}", one.filters[0]),
                other => panic!("{other:?}"),
            });
        }
        let expected = [
            "+ bench/r/churn/3/0/state",
            "- bench/r/churn/3/0/state",
            "+ bench/r/churn/3/+/1",
            "- bench/r/churn/3/+/1",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn packet_identifiers_go_round_and_leave_out_zero() {
        for (number, expected) in [(0, 1), (65_534, 65_535), (65_535, 1)] {
            let mut out = Vec::new();
            append_change("r", 0, number, Version::V3_1_1, &mut out);
            assert_eq!(out[2..4], u16::to_be_bytes(expected));
        }
    }
}
