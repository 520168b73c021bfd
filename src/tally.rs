//! What is counted of every packet: by one thread, read by others.
//!
//! Owns the numbers, in plain places that one thread at a time adds to: an
//! addition takes one instruction and no lock. Each worker has a [`Tally`] of its
//! own; [`Tallies`] knows all of them, and sums them up for who asks. What is
//! rarer is counted in `broker/counters.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::message::Qos;
use crate::protocol::{PacketType, Version};

/// A number that one thread at a time adds to, and others read.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    /// What two threads add at the same time may be lost.
    #[inline]
    pub fn add(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper ends of the buckets of a span of time, in microseconds; what takes
/// longer than the last is counted behind it.
pub const SPANS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// The upper ends of the buckets of how many there were of something.
pub const SIZES: [u64; 17] = [
    1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536,
];

const BUCKETS: usize = SPANS_US.len() + 1;

/// How values are spread, in buckets that are told with each of them.
#[derive(Default)]
pub struct Histogram {
    buckets: [Count; BUCKETS],
    sum: Count,
}

impl Histogram {
    /// A span, among [`SPANS_US`].
    pub fn note_span(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        self.note(micros, &SPANS_US);
    }

    /// A number, among [`SIZES`].
    pub fn note_size(&self, size: usize) {
        self.note(size as u64, &SIZES);
    }

    fn note(&self, value: u64, ends: &[u64; BUCKETS - 1]) {
        let at = ends.partition_point(|end| *end < value);
        self.buckets[at].add(1);
        self.sum.add(value);
    }

    pub fn read(&self) -> Spread {
        Spread {
            buckets: self.buckets.each_ref().map(Count::get),
            sum: self.sum.get(),
        }
    }
}

/// What a [`Histogram`] has at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many values there were in each bucket alone; the last: beyond all.
    pub buckets: [u64; BUCKETS],
    /// Of all values.
    pub sum: u64,
}

impl Spread {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    fn add(&mut self, other: &Spread) {
        let pairs = self.buckets.iter_mut().zip(other.buckets);
        pairs.for_each(|(sum, more)| *sum += more);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

/// A packet's first byte without RETAIN: so its type and its QoS are one place.
const FIRST_BYTES: usize = 128;
/// As many as [`Version`] and [`Qos`] have.
const VERSIONS: usize = 3;
const QOS: usize = 3;

/// What goes one way.
struct Way {
    packets: [[Count; FIRST_BYTES]; VERSIONS],
    /// Of the payloads of PUBLISH packets, by their QoS.
    payload_bytes: [Count; QOS],
    /// Of MQTT: before it is wrapped in TLS or WebSocket.
    bytes: Count,
}

impl Default for Way {
    fn default() -> Way {
        Way {
            packets: std::array::from_fn(|_| std::array::from_fn(|_| Count::default())),
            payload_bytes: Default::default(),
            bytes: Count::default(),
        }
    }
}

impl Way {
    #[inline]
    fn count(&self, wire: Version, first_byte: u8, packets: u64) {
        self.packets[wire as usize][usize::from(first_byte >> 1)].add(packets);
    }

    fn read(&self) -> Traffic {
        let mut traffic = Traffic {
            bytes: self.bytes.get(),
            ..Traffic::default()
        };
        for (version, packets) in self.packets.iter().enumerate() {
            for (at, count) in packets.iter().enumerate() {
                let (packet, count) = (at >> 3, count.get());
                traffic.packets[version][packet] += count;
                if packet == PUBLISH
                    && let Some(publishes) = traffic.publishes.get_mut(at & 3)
                {
                    publishes.messages += count;
                }
            }
        }
        for (publishes, bytes) in traffic.publishes.iter_mut().zip(&self.payload_bytes) {
            publishes.payload_bytes = bytes.get();
        }
        traffic
    }
}

const PUBLISH: usize = 3;

/// What went one way until a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// By version, in the order of [`Version`], and by what the upper half of the
    /// first byte says.
    pub packets: [[u64; 16]; VERSIONS],
    /// By QoS.
    pub publishes: [Publishes; QOS],
    /// Of MQTT: before it is wrapped in TLS or WebSocket.
    pub bytes: u64,
}

/// PUBLISH packets of one QoS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publishes {
    pub messages: u64,
    pub payload_bytes: u64,
}

impl Traffic {
    /// Packets of all types and versions.
    pub fn packets_len(&self) -> u64 {
        self.packets.iter().flatten().sum()
    }

    /// Packets of that type, of all versions.
    pub fn packets_of(&self, packet: PacketType) -> u64 {
        self.packets
            .iter()
            .map(|packets| packets[packet as usize])
            .sum()
    }

    /// PUBLISH packets of every QoS.
    pub fn publishes(&self) -> Publishes {
        let all = self.publishes.iter();
        all.fold(Publishes::default(), |sum, publishes| Publishes {
            messages: sum.messages + publishes.messages,
            payload_bytes: sum.payload_bytes + publishes.payload_bytes,
        })
    }

    fn add(&mut self, other: &Traffic) {
        let packets = self.packets.iter_mut().flatten();
        packets
            .zip(other.packets.iter().flatten())
            .for_each(|(sum, more)| *sum += more);
        for (sum, more) in self.publishes.iter_mut().zip(&other.publishes) {
            sum.messages += more.messages;
            sum.payload_bytes += more.payload_bytes;
        }
        self.bytes += other.bytes;
    }
}

/// What one worker counts.
#[derive(Default)]
pub struct Tally {
    received: Way,
    sent: Way,
    /// From when the broker took a message up, to when it was written.
    latency: Histogram,
}

impl Tally {
    /// So many packets came that begin with this byte.
    #[inline]
    pub fn note_received(&self, wire: Version, first_byte: u8, packets: u64) {
        self.received.count(wire, first_byte, packets);
    }

    /// It was a PUBLISH, with a payload of so many bytes.
    #[inline]
    pub fn note_published(&self, qos: Qos, payload_len: usize) {
        self.received.payload_bytes[qos as usize].add(payload_len as u64);
    }

    #[inline]
    pub fn note_read(&self, bytes: usize) {
        self.received.bytes.add(bytes as u64);
    }

    /// A PUBLISH is on its way.
    #[inline]
    pub fn note_delivered(&self, wire: Version, qos: Qos, dup: bool, payload_len: usize) {
        let first_byte = (PUBLISH as u8) << 4 | u8::from(dup) << 3 | (qos as u8) << 1;
        self.sent.count(wire, first_byte, 1);
        self.sent.payload_bytes[qos as usize].add(payload_len as u64);
    }

    /// These are on their way: whole packets, one behind the other, without a
    /// PUBLISH among them.
    #[inline]
    pub fn note_answers(&self, wire: Version, mut packets: &[u8]) {
        while let [first_byte, rest @ ..] = packets {
            // Most are acknowledgements of four bytes, one like the other.
            let acks = packets.chunks_exact(4);
            let alike = acks.take_while(|ack| ack[..2] == [*first_byte, 2]).count();
            if alike > 0 {
                self.sent.count(wire, *first_byte, alike as u64);
                packets = &packets[4 * alike..];
                continue;
            }
            self.sent.count(wire, *first_byte, 1);
            let (mut len, mut digits) = (0, 0);
            for byte in rest.iter().take(4) {
                len |= usize::from(byte & 0x7F) << (7 * digits);
                digits += 1;
                if *byte < 0x80 {
                    break;
                }
            }
            packets = rest.get(digits + len..).unwrap_or_default();
        }
    }

    #[inline]
    pub fn note_written(&self, bytes: usize) {
        self.sent.bytes.add(bytes as u64);
    }

    /// A message was written so long after the broker took it up.
    pub fn note_latency(&self, latency: Duration) {
        self.latency.note_span(latency);
    }

    fn read(&self) -> Sums {
        Sums {
            received: self.received.read(),
            sent: self.sent.read(),
            latency: self.latency.read(),
        }
    }
}

/// What all workers have counted until a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub received: Traffic,
    pub sent: Traffic,
    /// In microseconds, in the buckets of [`SPANS_US`].
    pub latency: Spread,
}

impl Sums {
    fn add(&mut self, other: &Sums) {
        self.received.add(&other.received);
        self.sent.add(&other.sent);
        self.latency.add(&other.latency);
    }
}

/// The tallies of all workers there are or were.
#[derive(Default)]
pub struct Tallies(Mutex<Workers>);

#[derive(Default)]
struct Workers {
    tallies: Vec<Arc<Tally>>,
    /// Of those that are gone.
    gone: Sums,
}

impl Tallies {
    /// One for a new worker.
    pub fn begin(&self) -> Arc<Tally> {
        let tally = Arc::new(Tally::default());
        let mut workers = self.0.lock();
        workers.let_go();
        workers.tallies.push(tally.clone());
        tally
    }

    pub fn sums(&self) -> Sums {
        let mut workers = self.0.lock();
        workers.let_go();
        let mut sums = workers.gone;
        workers
            .tallies
            .iter()
            .for_each(|tally| sums.add(&tally.read()));
        sums
    }
}

impl Workers {
    /// What those that are gone have counted stays.
    fn let_go(&mut self) {
        let gone = &mut self.gone;
        self.tallies.retain(|tally| {
            // Nobody else can make another of the only one.
            let is_there = Arc::strong_count(tally) > 1;
            if !is_there {
                gone.add(&tally.read());
            }
            is_there
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_counted_stays_when_they_are_gone() {
        let tallies = Tallies::default();
        let (one, other) = (tallies.begin(), tallies.begin());
        one.note_received(Version::V5, 0x3D, 1); // DUP, QoS 2, RETAIN
        one.note_published(Qos::ExactlyOnce, 7);
        other.note_delivered(Version::V3_1_1, Qos::AtLeastOnce, true, 5);
        other.note_delivered(Version::V3_1_1, Qos::AtMostOnce, false, 6);
        // Three PUBACKs, PINGRESP, and a SUBACK with 130 bytes behind its length.
        let mut answers = [0x40, 0x02, 0, 1].repeat(3);
        answers.extend([0xD0, 0x00, 0x90, 0x82, 0x01]);
        answers.extend([0; 130]);
        answers.extend([0xD0, 0x00]);
        other.note_answers(Version::V5, &answers);
        one.note_read(100);
        other.note_written(200);
        one.note_latency(Duration::from_micros(51));
        other.note_latency(Duration::from_secs(60));
        let sums = tallies.sums();
        drop((one, other));
        assert_eq!(tallies.sums(), sums);
        tallies.begin();
        assert_eq!(tallies.sums(), sums);
        let publishes = |messages, payload_bytes| Publishes {
            messages,
            payload_bytes,
        };
        assert_eq!(sums.received.packets_of(PacketType::Publish), 1);
        assert_eq!(sums.received.publishes[2], publishes(1, 7));
        assert_eq!(sums.received.packets[Version::V5 as usize][PUBLISH], 1);
        assert_eq!(sums.sent.publishes(), publishes(2, 11));
        assert_eq!(sums.sent.packets_of(PacketType::Pingresp), 2);
        assert_eq!(sums.sent.packets_of(PacketType::Suback), 1);
        assert_eq!(sums.sent.packets_of(PacketType::Puback), 3);
        assert_eq!(sums.sent.packets_len(), 8);
        assert_eq!((sums.received.bytes, sums.sent.bytes), (100, 200));
        assert_eq!(sums.latency.count(), 2);
        assert_eq!(sums.latency.buckets[1], 1);
        assert_eq!(sums.latency.buckets[BUCKETS - 1], 1);
        assert_eq!(sums.latency.sum, 60_000_051);
    }

    #[test]
    fn a_value_is_counted_where_it_is_no_more_than_the_end() {
        let histogram = Histogram::default();
        for size in [0, 1, 2, 3, 65_536, 65_537] {
            histogram.note_size(size);
        }
        let mut expected = [0; BUCKETS];
        (expected[0], expected[1], expected[2]) = (2, 1, 1);
        (expected[16], expected[17]) = (1, 1);
        assert_eq!(histogram.read().buckets, expected);
    }

    /// What is cut off, or is no packet at all, ends the count.
    #[test]
    fn answers_that_are_cut_off_are_counted_once() {
        for answers in [
            &[0x40][..],
            &[0x40, 0x80],
            &[0x40, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        ] {
            let tally = Tally::default();
            tally.note_answers(Version::V5, answers);
            assert_eq!(tally.read().sent.packets_len(), 1);
        }
    }
}
