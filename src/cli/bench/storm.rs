//! A storm: clients with persistent sessions lose their connections all at once,
//! and come back all at once, as fast as they can.
//!
//! As devices do, who is not let in comes again after a short pause, which is
//! another one each time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Job;
use super::dial::{Dialer, Event, Then};
use super::latency;
use super::net::{Client, Net, Silence};
use crate::protocol::Version;

/// Who is not back after so long stays away.
const BACK_MAX: Duration = Duration::from_secs(120);
/// So many begin to connect before it is looked at what has come.
const BATCH: usize = 256;
const LOOK: Duration = Duration::from_millis(10);
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_SPREAD_MS: u64 = 400;

/// The job's clients, connected, each with a session that stays and one
/// subscription.
pub struct Storm<'a> {
    job: &'a Job,
    clients: Vec<Client>,
    net: Net,
    links: Range<usize>,
    /// Who is back.
    back: Option<Dialer<'a>>,
}

/// How a storm went.
pub struct Passed {
    /// Until all were back.
    pub took: Duration,
    /// When they were back, since the connections were cut, in nanoseconds.
    pub back: Histogram<u64>,
    /// How often one was not let in.
    pub turned_away: u64,
}

impl<'a> Storm<'a> {
    /// Connects and subscribes all.
    pub fn gather(job: &'a Job) -> Result<Storm<'a>, String> {
        let mut net = Net::new(&job.target, 0)?;
        let clients: Vec<Client> = (0..job.clients)
            .map(|index| Client {
                clean: false,
                ..job.client("d", index, vec![format!("bench/{}/{index}", job.run)])
            })
            .collect();
        let links = net.connect(clients.iter().cloned(), &mut Silence, |_| Ok(()))?;
        Ok(Storm {
            job,
            clients,
            net,
            links,
            back: None,
        })
    }

    /// Cuts all connections, and waits until all are back; gives up where
    /// `goes_on` says no.
    ///
    /// # Errors
    /// One is refused for good, or its session was not kept.
    pub fn strike(&mut self, goes_on: impl Fn() -> bool) -> Result<Passed, String> {
        let target = &self.job.target;
        let mut dialer = Dialer::new(target, Then::Stay)?;
        let connects: Vec<Vec<u8>> = (self.clients.iter())
            .map(|client| {
                let mut connect = Vec::new();
                target.append_connect(client, &mut connect);
                connect
            })
            .collect();
        let mut passed = Passed {
            took: Duration::ZERO,
            back: latency::histogram(),
            turned_away: 0,
        };
        let mut pauses = Pauses::new();
        let mut events = Vec::new();
        let mut coming = 0..self.clients.len();
        let started = Instant::now();
        self.net.cut(self.links.clone())?;
        while passed.back.len() < self.clients.len() as u64 {
            let due = pauses.over(Instant::now());
            for client in due.into_iter().chain(coming.by_ref().take(BATCH)) {
                dialer.dial(client, &connects[client], target.tls.as_ref(), &mut events)?;
            }
            let wait = match coming.is_empty() {
                true => LOOK,
                false => Duration::ZERO,
            };
            dialer.poll(wait, &mut events)?;
            for (client, event) in events.drain(..) {
                match event {
                    Event::Admitted {
                        session_present, ..
                    } => {
                        // MQTT 3.1 does not say.
                        if !session_present && target.version != Version::V3_1 {
                            let id = &self.clients[client].id;
                            return Err(format!("the broker has lost the session of client {id}"));
                        }
                        passed.took = started.elapsed();
                        passed.back.saturating_record(passed.took.as_nanos() as u64);
                    }
                    Event::TurnedAway(_) => {
                        passed.turned_away += 1;
                        pauses.begin(client, Instant::now());
                    }
                    // Nobody says goodbye here.
                    Event::Gone => {}
                }
            }
            if started.elapsed() > BACK_MAX || !goes_on() {
                return Err(format!(
                    "{} of {} clients are back after {:.1} s, and were not let in {} times",
                    passed.back.len(),
                    self.clients.len(),
                    started.elapsed().as_secs_f64(),
                    passed.turned_away
                ));
            }
        }
        self.back = Some(dialer);
        Ok(passed)
    }

    /// Ends all sessions.
    pub fn disperse(mut self) -> Result<(), String> {
        self.back = None;
        let ended = self.clients.iter().map(Client::ended);
        let links = self.net.connect(ended, &mut Silence, |_| Ok(()))?;
        self.net.disconnect(links);
        Ok(())
    }
}

/// Who waits before it comes again, and until when.
struct Pauses {
    ends: BinaryHeap<Reverse<(Instant, usize)>>,
    random: RandomState,
    begun: u64,
}

impl Pauses {
    fn new() -> Pauses {
        Pauses {
            ends: BinaryHeap::new(),
            random: RandomState::new(),
            begun: 0,
        }
    }

    fn begin(&mut self, client: usize, now: Instant) {
        self.begun += 1;
        let spread = self.random.hash_one(self.begun) % PAUSE_SPREAD_MS;
        let pause = PAUSE_MIN + Duration::from_millis(spread);
        self.ends.push(Reverse((now + pause, client)));
    }

    /// Whose pause is over.
    fn over(&mut self, now: Instant) -> Vec<usize> {
        let mut clients = Vec::new();
        while let Some(Reverse((end, client))) = self.ends.peek()
            && *end <= now
        {
            clients.push(*client);
            self.ends.pop();
        }
        clients
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_turned_away_comes_again_after_a_pause_of_its_own() {
        let (start, mut pauses) = (Instant::now(), Pauses::new());
        (0..100).for_each(|client| pauses.begin(client, start));
        let at = |ms| start + Duration::from_millis(ms);
        assert!(pauses.over(at(99)).is_empty());
        let first_half = pauses.over(at(300)).len();
        assert!((1..100).contains(&first_half), "{first_half}");
        assert_eq!(pauses.over(at(500)).len(), 100 - first_half);
    }
}
