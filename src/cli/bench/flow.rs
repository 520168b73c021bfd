//! One thread's traffic: publishers, subscribers, and the windows between
//! them.
//!
//! A message takes room in its publisher's window until each subscriber that
//! is to get it has read it, and, if it asks so, the broker has acknowledged
//! it. Whatever one turn of the poll brings is handled first; then each publisher with room writes once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::course::{Board, Counters, Phase};
use super::frame::{Frame, PUBACK, PUBREC};
use super::latency::{Latencies, SendTimes};
use super::net::{Client, Conversation, Net, Target};
use super::publication::{PacketIds, Stamp, Template, append_answer};

/// A write holds at most so much, or one message.
const WRITE_BYTES_MAX: usize = 256 * 1024;
/// In the open loop a publisher waits where so much waits for its socket.
const BACKLOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The open loop's clock ticks at most so often.
const TICK_MIN: Duration = Duration::from_micros(50);
/// How soon a change of phase is noticed.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// And while clients wait to connect.
const PHASE_WAIT: Duration = Duration::from_millis(1);

/// What one thread does.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Clients that connect, subscribe to what never comes, and stay.
    pub bystanders: Vec<Client>,
    pub subscribers: Vec<Client>,
    pub publishers: Vec<Client>,
    /// What each publisher sends.
    pub templates: Vec<Template>,
    /// How many subscribers get each message.
    pub copies: usize,
    pub load: Load,
    /// How many connections the threads before this one make.
    pub connects_before: usize,
}

impl Plan {
    pub fn clients(&self) -> usize {
        self.bystanders.len() + self.subscribers.len() + self.publishers.len()
    }

    /// Those whose sessions outlive their connections.
    fn lasting(&self) -> impl Iterator<Item = &Client> {
        let active = self.subscribers.iter().chain(&self.publishers);
        let all = active.chain(&self.bystanders);
        all.filter(|client| !client.clean)
    }
}

/// How much each publisher sends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Messages of a publisher that are published and not yet delivered.
    pub window: usize,
    /// What is not yet acknowledged takes room in the window too.
    pub until_acknowledged: bool,
    /// Messages a second of all publishers of this plan together, whatever
    /// comes back (open loop); 0: as fast as the window allows.
    pub rate: f64,
    /// After so many messages a publisher stops.
    pub messages_max: u64,
    /// So long the broker is asked to keep each message back.
    pub delay: Duration,
}

/// Carries a plan out until the board says [`Phase::End`]; returns how old
/// the messages were that were delivered, and acknowledged, in
/// [`Phase::Measure`].
pub fn run(
    plan: Plan,
    target: &Target,
    board: &Board,
    counters: &Counters,
) -> Result<Latencies, String> {
    let mut net = Net::new(target, plan.connects_before)?;
    let mut flow = Flow::new(&plan, board);
    let lasting: Vec<Client> = plan.lasting().map(Client::ended).collect();
    let mut connected = 0;
    for (phase, clients) in [
        (Phase::Gather, plan.bystanders),
        (Phase::Connect, plan.subscribers),
        (Phase::Connect, plan.publishers),
    ] {
        while board.phase() < phase {
            net.poll(PHASE_WAIT, &mut flow)?;
        }
        board.check_end()?;
        let links = net.connect(clients, &mut flow, |done| {
            counters.set_connected(connected + done);
            board.check_end()
        })?;
        connected += links.len();
    }
    counters.set_connected(connected);
    for (index, publisher) in flow.publishers.iter_mut().enumerate() {
        let demands = net.demands(flow.publishers_at + index);
        demands.check(&publisher.template)?;
        publisher.ids = PacketIds::new(demands.receive_max);
    }
    let waker = net.waker()?;
    thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel();
        if plan.load.rate > 0.0 && !flow.publishers.is_empty() {
            let period = Duration::from_secs_f64(1.0 / plan.load.rate).max(TICK_MIN);
            scope.spawn(move || tick(period, &waker, &stopped));
        }
        let result = flow.run(&mut net, counters);
        drop::<Sender<()>>(stop);
        result
    })?;
    net.disconnect(0..connected);
    let ended = net.connect(lasting, &mut Leftovers, |_| Ok(()))?;
    net.disconnect(ended);
    Ok(flow.latencies)
}

/// What may still come to sessions that are being ended.
struct Leftovers;

impl Conversation for Leftovers {
    fn frame(&mut self, _: usize, _: Frame<'_>, _: &mut Vec<u8>) -> Result<(), String> {
        Ok(())
    }
}

/// Wakes a poll, whose own time-out is in milliseconds, until `stopped`.
fn tick(period: Duration, waker: &mio::Waker, stopped: &Receiver<()>) {
    let mut next = Instant::now();
    loop {
        next = (next + period).max(Instant::now());
        let wait = next.saturating_duration_since(Instant::now());
        if stopped.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) || waker.wake().is_err() {
            return;
        }
    }
}

struct Flow<'a> {
    board: &'a Board,
    load: Load,
    copies: usize,
    /// The first subscriber's link; then come the others.
    subscribers_at: usize,
    publishers_at: usize,
    publishers: Vec<Publisher>,
    /// What each subscriber got of each publisher, one row a subscriber;
    /// kept only where several get each message.
    received: Vec<u64>,
    /// Publishers with room that they had not before.
    ready: Vec<usize>,
    latencies: Latencies,
    phase: Phase,
    /// When the bytes that are being read were read.
    now: Duration,
    /// Messages of one stamp, read one after the other.
    same: Option<(Stamp, u64)>,
    published: u64,
    delivered: u64,
    /// Of the open loop: when it began, and how many it has sent since.
    schedule: Option<(Duration, u64)>,
}

struct Publisher {
    template: Template,
    ids: PacketIds,
    sent: SendTimes,
    published: u64,
    delivered: u64,
    /// How many got each message of the window, by number modulo length.
    receipts: Vec<u32>,
    /// Stands in the list of those that are ready.
    ready: bool,
}

impl<'a> Flow<'a> {
    fn new(plan: &Plan, board: &'a Board) -> Flow<'a> {
        let load = plan.load;
        // The open loop waits for nothing: it needs to know no window.
        let copies = if load.rate > 0.0 { 1 } else { plan.copies };
        let (receipts, rows) = match copies {
            0 | 1 => (0, 0),
            _ => (load.window.next_power_of_two(), plan.subscribers.len()),
        };
        let publishers = plan.templates.iter().map(|template| Publisher {
            template: template.clone(),
            ids: PacketIds::new(u16::MAX),
            sent: SendTimes::new(),
            published: 0,
            delivered: 0,
            receipts: vec![0; receipts],
            ready: false,
        });
        Flow {
            board,
            load,
            copies,
            subscribers_at: plan.bystanders.len(),
            publishers_at: plan.bystanders.len() + plan.subscribers.len(),
            publishers: publishers.collect(),
            received: vec![0; rows * plan.templates.len()],
            ready: Vec::new(),
            latencies: Latencies::new(),
            phase: Phase::Start,
            now: Duration::ZERO,
            same: None,
            published: 0,
            delivered: 0,
            schedule: None,
        }
    }

    fn run(&mut self, net: &mut Net, counters: &Counters) -> Result<(), String> {
        let mut out = Vec::with_capacity(WRITE_BYTES_MAX);
        loop {
            let phase = self.board.phase();
            if phase == Phase::End {
                return Ok(());
            }
            let starts = !self.phase.publishes() && phase.publishes();
            self.phase = phase;
            if starts && self.load.rate == 0.0 {
                (0..self.publishers.len()).for_each(|index| self.make_ready(index));
            }
            if phase.publishes() {
                match self.load.rate > 0.0 {
                    true => self.publish_what_is_due(net, &mut out)?,
                    false => self.publish_what_has_room(net, &mut out)?,
                }
            }
            counters.set_traffic(self.published, self.delivered);
            net.poll(POLL_WAIT, self)?;
        }
    }

    fn make_ready(&mut self, publisher: usize) {
        if !std::mem::replace(&mut self.publishers[publisher].ready, true) {
            self.ready.push(publisher);
        }
    }

    fn publish_what_has_room(&mut self, net: &mut Net, out: &mut Vec<u8>) -> Result<(), String> {
        while let Some(index) = self.ready.pop() {
            let publisher = &mut self.publishers[index];
            publisher.ready = false;
            let link = self.publishers_at + index;
            let batch_max = (WRITE_BYTES_MAX / publisher.template.frame_bytes()).max(1);
            // A full socket tells when it has room again.
            while net.pending_bytes(link) == 0 {
                let mut under_way = (publisher.published - publisher.delivered) as usize;
                if self.load.until_acknowledged {
                    under_way = under_way.max(publisher.ids.in_use());
                }
                let left = self.load.messages_max - publisher.published;
                let room = self.load.window.saturating_sub(under_way);
                let batch = room.min(batch_max).min(left as usize);
                let count = publisher.append(batch, index, self.board.now(), out);
                if count == 0 {
                    break;
                }
                self.published += count as u64;
                net.write(link, out)?;
                out.clear();
            }
        }
        Ok(())
    }

    fn publish_what_is_due(&mut self, net: &mut Net, out: &mut Vec<u8>) -> Result<(), String> {
        let now = self.board.now();
        let (start, mut sent) = self.schedule.unwrap_or((now, 0));
        let due = ((now - start).as_secs_f64() * self.load.rate) as u64;
        let total = self
            .load
            .messages_max
            .saturating_mul(self.publishers.len() as u64);
        let due = due.min(total);
        while sent < due {
            let index = (sent % self.publishers.len() as u64) as usize;
            let link = self.publishers_at + index;
            if net.pending_bytes(link) > BACKLOG_BYTES_MAX {
                return Err(format!(
                    "the broker does not take {} messages/s: {} bytes wait for one publisher's \
                     socket; ask for a lower --rate",
                    self.load.rate, BACKLOG_BYTES_MAX
                ));
            }
            if self.publishers[index].append(1, index, now, out) == 0 {
                return Err(format!(
                    "the broker does not take {} messages/s: it has left all packet identifiers \
                     of a publisher unacknowledged; ask for a lower --rate",
                    self.load.rate
                ));
            }
            net.write(link, out)?;
            out.clear();
            sent += 1;
            self.published += 1;
        }
        self.schedule = Some((start, sent));
        Ok(())
    }

    /// A subscriber has read `count` messages of one stamp.
    fn deliver(&mut self, subscriber: usize, stamp: Stamp, count: u64) {
        self.delivered += count;
        if self.phase == Phase::Measure {
            let age_ns = stamp.age_ns(self.now);
            self.latencies.record_delivery(age_ns, count);
        }
        if self.load.rate > 0.0 {
            return;
        }
        let index = stamp.publisher();
        let publisher = &mut self.publishers[index];
        let before = publisher.delivered;
        match self.copies {
            1 => publisher.delivered = (before + count).min(publisher.published),
            copies => {
                let row = subscriber * self.publishers.len();
                let received = &mut self.received[row + index];
                let publisher = &mut self.publishers[index];
                publisher.receive(*received, count, copies as u32);
                *received += count;
            }
        }
        if self.publishers[index].delivered > before {
            self.make_ready(index);
        }
    }

    fn end_run(&mut self, subscriber: usize) {
        if let Some((stamp, count)) = self.same.take() {
            self.deliver(subscriber, stamp, count);
        }
    }
}

impl Conversation for Flow<'_> {
    fn begin(&mut self, _link: usize) {
        self.now = self.board.now();
    }

    fn frame(&mut self, link: usize, frame: Frame<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        if link >= self.publishers_at {
            let index = link - self.publishers_at;
            let publisher = &mut self.publishers[index];
            publisher.ids.handle_ack(&frame, out)?;
            if let Frame::Ack { kind, packet_id } = frame
                && self.phase == Phase::Measure
                && matches!(kind, PUBACK | PUBREC)
            {
                let age = publisher.sent.age(packet_id, self.now);
                self.latencies.record_acknowledgement(age);
            }
            if self.load.rate == 0.0 {
                // It may have waited for a packet identifier alone.
                self.make_ready(index);
            }
            return Ok(());
        }
        append_answer(&frame, out);
        let Frame::Publish { payload, .. } = frame else {
            return Ok(());
        };
        let stamp = Stamp::of(payload)
            .filter(|stamp| stamp.publisher() < self.publishers.len())
            .filter(|_| link >= self.subscribers_at)
            .ok_or("a message came that this run did not send: who else uses its topics?")?;
        match &mut self.same {
            Some((same, count)) if *same == stamp => *count += 1,
            _ => {
                self.end_run(link - self.subscribers_at);
                self.same = Some((stamp, 1));
            }
        }
        Ok(())
    }

    fn end(&mut self, link: usize) {
        if self.same.is_some() {
            self.end_run(link - self.subscribers_at);
        }
    }

    fn writable(&mut self, link: usize) {
        if link >= self.publishers_at && self.load.rate == 0.0 {
            self.make_ready(link - self.publishers_at);
        }
    }
}

impl Publisher {
    /// Appends up to `count` messages that say to be the publisher's of this
    /// `index`; returns how many.
    fn append(&mut self, count: usize, index: usize, now: Duration, out: &mut Vec<u8>) -> usize {
        let stamp = Stamp::new(now, index);
        let qos = self.template.qos();
        let mut appended = 0;
        while appended < count {
            let packet_id = match qos {
                0 => 0,
                _ => match self.ids.take() {
                    Some(packet_id) => packet_id,
                    None => break,
                },
            };
            if qos > 0 {
                self.sent.note(packet_id, now);
            }
            self.template.append(stamp, packet_id, out);
            appended += 1;
        }
        self.published += appended as u64;
        appended
    }

    /// One of `copies` receivers has got the messages from number `from` on.
    fn receive(&mut self, from: u64, count: u64, copies: u32) {
        let mask = self.receipts.len() as u64 - 1;
        for number in from..(from + count).min(self.published) {
            self.receipts[(number & mask) as usize] += 1;
        }
        while self.delivered < self.published {
            let receipts = &mut self.receipts[(self.delivered & mask) as usize];
            if *receipts < copies {
                break;
            }
            *receipts = 0;
            self.delivered += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::asks::Asks;
    use super::super::publication::Form;
    use super::*;
    use crate::message::Qos;
    use crate::protocol::{PropertiesBuf, Version};

    #[test]
    fn a_message_is_delivered_once_all_have_it() {
        let form = Form {
            version: Version::V3_1_1,
            qos: Qos::AtMostOnce,
            payload_bytes: 8,
            properties: PropertiesBuf::new(),
            asks: Asks::default(),
            topic_alias: false,
        };
        let mut publisher = Publisher {
            template: Template::new("t", &form),
            ids: PacketIds::new(u16::MAX),
            sent: SendTimes::new(),
            published: 0,
            delivered: 0,
            receipts: vec![0; 4],
            ready: false,
        };
        let mut out = Vec::new();
        let start = Duration::ZERO;
        assert_eq!(publisher.append(4, 0, start, &mut out), 4);
        publisher.receive(0, 3, 2);
        assert_eq!(publisher.delivered, 0);
        publisher.receive(0, 1, 2);
        assert_eq!(publisher.delivered, 1);
        publisher.receive(1, 3, 2);
        assert_eq!(publisher.delivered, 3);
        publisher.append(3, 0, start, &mut out);
        publisher.receive(3, 4, 2);
        assert_eq!(publisher.delivered, 4);
        publisher.receive(4, 3, 2);
        assert_eq!(publisher.delivered, 7);
    }
}
