//! What slows a connection down: rates of its client, of its user and of its
//! listener, and memory.
//!
//! Owns from when on it may be read, and be written, again. Drops nothing: what
//! is not read waits with the client, what is not written in the session. A
//! connection pays for what it has done and waits until that is paid; so those
//! that share a rate take turns, and none looks before its own has come. A new
//! connection waits for its first turn too: coming again is not quicker.

use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::{Mutex, RwLock};
use tokio::time::{Sleep, sleep_until};

use super::Clock;
use super::worker::READ_MAX;
use crate::broker::{Counters, Shedding};
use crate::bucket::Bucket;
use crate::config::Rates;
use crate::message::Time;

/// What a rate lets through at once, after a rest.
const BURST: Duration = Duration::from_secs(1);
/// For longer than so nobody waits for what others have done: beyond it a rate
/// forgets what it is owed.
const DEBT_MAX: Duration = Duration::from_secs(2);
/// Of a second's bytes, what is read or written at once at most when there is
/// less room than that; the less the more is owed, so that it is rarely forgotten.
const STEPS_PER_SEC: u64 = 8;
/// Read at once from who may not go on as it likes, in bytes: what of it cannot
/// be handled yet is kept.
const SLOW_READ_MAX: usize = 16 << 10;
/// A connection that waits says so often that it is not silent: less than 1.5
/// times the shortest keep alive. It also looks whether there is memory again.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// While there is no memory, how long a publisher is not read after the first
/// read; after each further one twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// But no longer than so.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Rates that one connection has, or several share.
pub struct Scope {
    incoming: Mutex<Flow>,
    outgoing: Mutex<Flow>,
}

/// One way; `None`: any amount.
struct Flow {
    messages: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Scope {
    /// `None`: nothing is bounded.
    pub fn new(rates: &Rates) -> Option<Arc<Scope>> {
        let bucket = |rate| {
            let rate = NonZeroU64::new(rate)?;
            Some(Bucket::new(rate, BURST).with_debt_max(DEBT_MAX))
        };
        let flow = |messages, bytes| {
            Mutex::new(Flow {
                messages: bucket(messages),
                bytes: bucket(bytes),
            })
        };
        (!rates.is_unbounded()).then(|| {
            Arc::new(Scope {
                incoming: flow(rates.messages_in, rates.bytes_in),
                outgoing: flow(rates.messages_out, rates.bytes_out),
            })
        })
    }
}

impl Flow {
    /// How many messages may be handled at once: whose turn it is has one at
    /// least. `None`: any number.
    fn messages_max(&self, now: Time) -> Option<u64> {
        let bucket = self.messages.as_ref()?;
        Some(bucket.room(now).max(1))
    }

    fn bytes_max(&self, now: Time) -> Option<u64> {
        let bucket = self.bytes.as_ref()?;
        let owed = bucket.ready_at().since(now).min(DEBT_MAX);
        let share = (DEBT_MAX - owed).as_micros() * u128::from(bucket.per_sec());
        let step = share / DEBT_MAX.as_micros() / u128::from(STEPS_PER_SEC);
        Some(bucket.room(now).max(step as u64).max(1))
    }

    /// From when on one more may have its turn.
    fn ready_at(&self) -> Time {
        let buckets = [&self.messages, &self.bytes].into_iter().flatten();
        buckets.map(Bucket::ready_at).max().unwrap_or_default()
    }

    /// Until when that has to be waited for.
    fn take(&mut self, messages: u64, bytes: usize, now: Time) -> Time {
        let take = |bucket: &mut Option<Bucket>, count| match bucket {
            Some(bucket) if count > 0 => bucket.take(count, now),
            _ => Time::ZERO,
        };
        take(&mut self.messages, messages).max(take(&mut self.bytes, bytes as u64))
    }
}

/// The rates of users that have connections.
pub struct UserScopes {
    rates: RwLock<Rates>,
    scopes: DashMap<Arc<str>, Arc<Scope>, ahash::RandomState>,
}

impl UserScopes {
    pub fn new(rates: Rates) -> UserScopes {
        UserScopes {
            rates: RwLock::new(rates),
            scopes: DashMap::default(),
        }
    }

    /// Who connects from now on has these rates; a user's connections from before
    /// go on sharing theirs.
    pub fn set(&self, rates: &Rates) {
        let mut held = self.rates.write();
        if *held != *rates {
            held.clone_from(rates);
            self.scopes.clear();
        }
    }

    /// What all connections of `user` share, as long as it has any.
    pub fn of(self: &Arc<Self>, user: &Arc<str>) -> Option<UserScope> {
        let rates = self.rates.read();
        if rates.is_unbounded() {
            return None;
        }
        let scope = match self.scopes.entry(user.clone()) {
            dashmap::Entry::Occupied(entry) => entry.get().clone(),
            dashmap::Entry::Vacant(entry) => {
                let scope = Scope::new(&rates)?;
                entry.insert(scope).clone()
            }
        };
        Some(UserScope {
            scope: Some(scope),
            user: user.clone(),
            all: self.clone(),
        })
    }
}

/// A connection's part in the rates of its user.
pub struct UserScope {
    // `None` only while it is dropped.
    scope: Option<Arc<Scope>>,
    user: Arc<str>,
    all: Arc<UserScopes>,
}

impl Drop for UserScope {
    fn drop(&mut self) {
        self.scope = None;
        // The table has the last one.
        (self.all.scopes).remove_if(&self.user, |_, scope| Arc::strong_count(scope) == 1);
    }
}

/// How one connection is slowed down.
#[derive(Default)]
pub struct Pace {
    client: Option<Arc<Scope>>,
    user: Option<UserScope>,
    listener: Option<Arc<Scope>>,
    reading: Wait,
    writing: Wait,
    // How long it waited last because there is no memory; zero: it did not.
    pause: Duration,
    // Until when it waits for that, apart from what a rate makes it wait.
    memory_until: Time,
    // Read with the CONNECT, and not paid for yet.
    unpaid: usize,
    written: Packets,
}

/// Until when.
#[derive(Default)]
struct Wait {
    until: Time,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Wait {
    /// Whether it, and what else ends at `other`, is over; otherwise the
    /// connection looks again then, or some time before.
    fn is_over(&mut self, other: Time, clock: &Clock, now: Time, cx: &mut Context<'_>) -> bool {
        let until = self.until.max(other);
        if now >= until {
            self.sleep = None;
            return true;
        }
        let look = clock.instant(until.min(now + LOOK_EVERY));
        let sleep = (self.sleep).get_or_insert_with(|| Box::pin(sleep_until(look)));
        sleep.as_mut().reset(look);
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        false
    }
}

impl Pace {
    /// `None`: the connection goes as fast as it can.
    pub fn new(
        client: Option<Arc<Scope>>,
        user: Option<UserScope>,
        listener: Option<Arc<Scope>>,
    ) -> Option<Box<Pace>> {
        let mut pace = Pace {
            client,
            user,
            listener,
            ..Pace::default()
        };
        // Behind those that are here: nobody is served sooner for coming again.
        let ready_at = |way: fn(&Scope) -> &Mutex<Flow>| {
            let scopes = pace.scopes().flatten();
            let ready = scopes.map(|scope| way(scope).lock().ready_at());
            ready.max().unwrap_or_default()
        };
        let (reading, writing) = (ready_at(|at| &at.incoming), ready_at(|at| &at.outgoing));
        (pace.reading.until, pace.writing.until) = (reading, writing);
        pace.has_rates().then(|| Box::new(pace))
    }

    /// Whether it is of use when there is enough memory.
    pub fn has_rates(&self) -> bool {
        self.scopes().any(|scope| scope.is_some())
    }

    /// Of the client, the user, the listener.
    fn scopes(&self) -> impl Iterator<Item = Option<&Arc<Scope>>> {
        let user = self.user.as_ref().and_then(|user| user.scope.as_ref());
        [self.client.as_ref(), user, self.listener.as_ref()].into_iter()
    }

    // ---- reading

    /// Whether the connection is not to be read now. It is woken when it is.
    pub fn delays_reading(
        &mut self,
        clock: &Clock,
        now: Time,
        shedding: Shedding,
        cx: &mut Context<'_>,
    ) -> bool {
        self.note_shedding(shedding);
        !self.reading.is_over(self.memory_until, clock, now, cx)
    }

    /// When there is memory again, nobody waits for it any more.
    fn note_shedding(&mut self, shedding: Shedding) {
        if shedding < Shedding::Publishers {
            (self.pause, self.memory_until) = (Duration::ZERO, Time::ZERO);
        }
    }

    /// So many bytes came with the CONNECT; they are paid for when they are
    /// handled.
    pub fn note_rest(&mut self, count: usize) {
        self.unpaid = count;
    }

    /// How many bytes may be read at once.
    pub fn read_max(&self, now: Time) -> usize {
        let bounds = self.scopes().flatten().map(|scope| {
            let flow = scope.incoming.lock();
            let slow = flow.messages.as_ref().map(|_| SLOW_READ_MAX as u64);
            flow.bytes_max(now).into_iter().chain(slow).min()
        });
        let memory = (!self.pause.is_zero()).then_some(SLOW_READ_MAX as u64);
        let max = bounds.flatten().chain(memory).min();
        max.map_or(READ_MAX, |max| max.min(READ_MAX as u64) as usize)
    }

    /// How far into `packets`, which begin with one, it may be gone.
    pub fn handled_max(&self, packets: &[u8], now: Time) -> usize {
        let bounds = self.scopes().flatten();
        let bounds = bounds.filter_map(|scope| scope.incoming.lock().messages_max(now));
        match bounds.min() {
            Some(max) => Packets::default().follow(packets, max).0,
            None => packets.len(),
        }
    }

    /// So many bytes were read.
    pub fn note_read(&mut self, count: usize, now: Time, counters: &Counters) {
        self.pay_for_reading(0, count, now, counters);
    }

    /// Of what was read, these whole packets were handled, and that is left.
    pub fn note_handled(
        &mut self,
        packets: &[u8],
        left: &[u8],
        shedding: Shedding,
        now: Time,
        counters: &Counters,
    ) {
        let (_, messages) = Packets::default().follow(packets, u64::MAX);
        let bytes = std::mem::take(&mut self.unpaid);
        self.pay_for_reading(messages, bytes, now, counters);
        let publishes = messages > 0 || left.first().is_some_and(is_publish);
        if shedding == Shedding::Publishers && publishes {
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            self.memory_until = self.memory_until.max(now + self.pause);
            counters.reads_delayed_memory.increment();
        }
    }

    fn pay_for_reading(&mut self, messages: u64, bytes: usize, now: Time, counters: &Counters) {
        let (until, scope) = self.pay(now, |scope| {
            scope.incoming.lock().take(messages, bytes, now)
        });
        if until > now {
            self.reading.until = self.reading.until.max(until);
            let counters = [
                &counters.reads_delayed_client,
                &counters.reads_delayed_user,
                &counters.reads_delayed_listener,
            ];
            counters[scope].increment();
        }
    }

    /// Until when the strictest makes it wait, and which that is.
    fn pay(&self, now: Time, take: impl Fn(&Scope) -> Time) -> (Time, usize) {
        let scopes = self.scopes().enumerate();
        let waits = scopes.filter_map(|(number, scope)| Some((take(scope?), number)));
        waits.max_by_key(|(until, _)| *until).unwrap_or((now, 0))
    }

    // ---- writing

    /// Whether the connection is not to be written now. It is woken when it is.
    pub fn delays_writing(&mut self, clock: &Clock, now: Time, cx: &mut Context<'_>) -> bool {
        !self.writing.is_over(Time::ZERO, clock, now, cx)
    }

    /// How many bytes of `piece`, which is next, may be written at once: one at
    /// least, if it has any.
    pub fn write_max(&self, piece: &[u8], now: Time) -> usize {
        let mut max = piece.len();
        for scope in self.scopes().flatten() {
            let flow = scope.outgoing.lock();
            if let Some(bytes) = flow.bytes_max(now) {
                max = max.min(usize::try_from(bytes).unwrap_or(max));
            }
            if let Some(messages) = flow.messages_max(now) {
                max = self.written.clone().follow(&piece[..max], messages).0;
            }
        }
        max
    }

    /// These bytes were written.
    pub fn note_written(&mut self, bytes: &[u8], now: Time, counters: &Counters) {
        let (_, messages) = self.written.follow(bytes, u64::MAX);
        let (until, scope) = self.pay(now, |scope| {
            scope.outgoing.lock().take(messages, bytes.len(), now)
        });
        if until > now {
            self.writing.until = until;
            let counters = [
                &counters.writes_delayed_client,
                &counters.writes_delayed_user,
                &counters.writes_delayed_listener,
            ];
            counters[scope].increment();
        }
    }
}

/// Where one is in a stream of packets, which may be cut anywhere (2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Packets {
    /// Before a packet.
    #[default]
    First,
    /// In its remaining length.
    Length { value: u32, shift: u32 },
    /// So many bytes before its end.
    Body(usize),
    /// What is no packet was begun: whoever decodes it says so.
    Lost,
}

impl Packets {
    /// Goes on along `bytes`, up to the PUBLISH after `publishes_max` of them;
    /// how far that was, and how many began there.
    fn follow(&mut self, bytes: &[u8], publishes_max: u64) -> (usize, u64) {
        let (mut at, mut publishes) = (0, 0);
        while let Some(byte) = bytes.get(at) {
            match *self {
                Packets::First if is_publish(byte) && publishes == publishes_max => break,
                Packets::First => {
                    publishes += u64::from(is_publish(byte));
                    *self = Packets::Length { value: 0, shift: 0 };
                    at += 1;
                }
                Packets::Length { value, shift } => {
                    let value = value | u32::from(byte & 0x7F) << shift;
                    *self = match (byte & 0x80, shift) {
                        (0, _) if value == 0 => Packets::First,
                        (0, _) => Packets::Body(value as usize),
                        (_, 21) => Packets::Lost, // [MQTT-1.5.5-1]: four bytes at most
                        _ => Packets::Length {
                            value,
                            shift: shift + 7,
                        },
                    };
                    at += 1;
                }
                Packets::Body(left) => {
                    let step = left.min(bytes.len() - at);
                    *self = match left - step {
                        0 => Packets::First,
                        left => Packets::Body(left),
                    };
                    at += step;
                }
                Packets::Lost => at = bytes.len(),
            }
        }
        (at, publishes)
    }
}

fn is_publish(first: &u8) -> bool {
    first >> 4 == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Time {
        Time::ZERO + 1000 * SECOND
    }

    fn rates(messages_in: u64, bytes_in: u64) -> Rates {
        Rates {
            messages_in,
            bytes_in,
            ..Rates::default()
        }
    }

    fn packet(first: u8, len: usize) -> Vec<u8> {
        let mut packet = vec![first];
        let mut rest = len;
        loop {
            let more = if rest > 0x7F { 0x80 } else { 0 };
            packet.push((rest & 0x7F) as u8 | more);
            rest >>= 7;
            if rest == 0 {
                break;
            }
        }
        // Looks like PUBLISHes, and is none.
        packet.extend(vec![0x30; len]);
        packet
    }

    /// PUBLISHes of every length of the remaining length, and others between.
    fn stream() -> Vec<u8> {
        let lens = [0, 1, 2, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152];
        let packets = lens.map(|len| [packet(0x32, len), packet(0xC0, 0), packet(0x82, len)]);
        packets.concat().concat()
    }

    #[test]
    fn packets_are_followed_wherever_they_are_cut() {
        let stream = stream();
        for step in [1, 2, 3, 7, 1000, 65_536, usize::MAX] {
            let mut packets = Packets::default();
            let mut publishes = 0;
            for piece in stream.chunks(step) {
                let (len, begun) = packets.follow(piece, u64::MAX);
                assert_eq!(len, piece.len());
                publishes += begun;
            }
            assert_eq!((publishes, packets), (9, Packets::First), "{step}");
        }
        // So many at most, and what is behind the last of them.
        let small = [packet(0x30, 3), packet(0xC0, 0)].concat().repeat(4);
        for max in 0..6 {
            let (len, begun) = Packets::default().follow(&small, max);
            assert_eq!((len, begun), (7 * max.min(4) as usize, max.min(4)));
        }
    }

    /// B04 and its like: whoever decodes it has to see it.
    #[test]
    fn what_is_no_packet_is_gone_through() {
        for bytes in [&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2][..], &[0x30]] {
            assert_eq!(Packets::default().follow(bytes, 1).0, bytes.len());
        }
    }

    /// C25: as many messages at once as a second gives, and then one by one.
    #[test]
    fn a_client_s_messages_are_handled_at_their_rate() {
        let counters = Counters::default();
        for per_sec in [1, 5, 1000] {
            let client = Scope::new(&rates(per_sec, 0));
            let mut pace = Pace::new(client, None, None).unwrap();
            let batch = packet(0x30, 5).repeat(3 * per_sec as usize);
            let (mut now, mut at) = (start(), 0);
            while at < batch.len() {
                now = now.max(pace.reading.until);
                let len = pace.handled_max(&batch[at..], now);
                assert!(len > 0);
                let (handled, left) = batch[at..].split_at(len);
                pace.note_handled(handled, left, Shedding::Nothing, now, &counters);
                let secs = now.since(start()).as_secs_f64();
                let allowed = per_sec as f64 * (1.0 + secs) + 0.01;
                at += len;
                assert!((at / 7) as f64 <= allowed, "{at} after {secs} s");
            }
            assert!(now >= start() + 2 * SECOND - SECOND / 100);
            assert!(now <= start() + 2 * SECOND + SECOND / 100);
        }
        assert!(counters.read().reads_delayed_client > 0);
    }

    /// Many that share a rate: it is kept, and each has its share.
    #[test]
    fn who_share_a_rate_take_turns() {
        const SHARING: usize = 100;
        const RATE: usize = 100_000;
        let counters = Counters::default();
        let listener = Scope::new(&rates(0, RATE as u64));
        let mut paces: Vec<_> = (0..SHARING)
            .map(|_| (Pace::new(None, None, listener.clone()).unwrap(), 0))
            .collect();
        let (mut now, mut total, mut turns) = (start(), 0, 0);
        while now < start() + 100 * SECOND {
            let (pace, read) = (paces.iter_mut())
                .min_by_key(|(pace, _)| pace.reading.until)
                .unwrap();
            now = now.max(pace.reading.until);
            let count = pace.read_max(now);
            pace.note_read(count, now, &counters);
            *read += count;
            total += count;
            turns += 1;
        }
        let expected = 101 * RATE;
        let step = RATE / STEPS_PER_SEC as usize;
        assert!((expected - step..=expected + SHARING * step).contains(&total));
        // The first had the burst.
        let shares = paces.iter().skip(1).map(|(_, read)| *read);
        let (least, most) = (shares.clone().min().unwrap(), shares.max().unwrap());
        // Those behind it had longer steps until much was owed: some more than one.
        assert!(most - least <= step + step / 8, "{least} to {most}");
        // Nobody looked in vain; the first read left room.
        assert_eq!(counters.read().reads_delayed_listener, turns - 1);
    }

    #[test]
    fn the_strictest_counts() {
        let counters = Counters::default();
        let users = Arc::new(UserScopes::new(rates(0, 100)));
        let user = users.of(&"ann".into());
        let client = Scope::new(&rates(0, 1000));
        let listener = Scope::new(&rates(0, 10_000));
        let mut pace = Pace::new(client, user, listener).unwrap();
        assert_eq!(pace.read_max(start()), 100);
        pace.note_read(1000, start(), &counters);
        assert_eq!(pace.reading.until, start() + DEBT_MAX);
        let counts = counters.read();
        assert_eq!(counts.reads_delayed_user, 1);
        assert_eq!(counts.reads_delayed_client, 0);
        // Writing is another matter.
        assert!(pace.writing.until <= start());
        assert_eq!(pace.write_max(&[0; 5000], start()), 5000);
    }

    #[test]
    fn a_user_s_rates_go_with_its_last_connection() {
        let users = Arc::new(UserScopes::new(rates(1, 0)));
        let (ann, ben) = ("ann".into(), "ben".into());
        let first = users.of(&ann).unwrap();
        let second = users.of(&ann).unwrap();
        let other = users.of(&ben).unwrap();
        let scope = |one: &UserScope| one.scope.clone().unwrap();
        assert!(Arc::ptr_eq(&scope(&first), &scope(&second)));
        assert!(!Arc::ptr_eq(&scope(&first), &scope(&other)));
        drop(first);
        assert_eq!(users.scopes.len(), 2);
        drop(second);
        assert_eq!(users.scopes.len(), 1);
        drop(other);
        assert!(users.scopes.is_empty());
        let unbounded = Arc::new(UserScopes::new(Rates::default()));
        assert!(unbounded.of(&ann).is_none());
        assert!(Pace::new(None, None, None).is_none());
    }

    /// C19: who publishes waits longer and longer, and not at all once there is
    /// memory again; who does not publish never does.
    #[test]
    fn without_memory_who_publishes_waits_longer_and_longer() {
        let counters = Counters::default();
        let mut pace = Pace::default();
        let (publish, ping) = (packet(0x32, 5), packet(0xC0, 0));
        let mut now = start();
        let note = |pace: &mut Pace, bytes: &[u8], left: &[u8], now| {
            pace.note_handled(bytes, left, Shedding::Publishers, now, &counters);
            assert_eq!(pace.reading.until, Time::ZERO, "that is a rate's");
            pace.memory_until.since(now)
        };
        assert_eq!(note(&mut pace, &ping, &[], now), Duration::ZERO);
        let mut expected = PAUSE_MIN;
        for _ in 0..20 {
            assert_eq!(note(&mut pace, &publish, &[], now), expected);
            now = now + expected;
            assert_eq!(note(&mut pace, &ping, &[], now), Duration::ZERO);
            expected = (expected * 2).min(PAUSE_MAX);
        }
        // One that is only begun takes memory too.
        assert_eq!(note(&mut pace, &[], &publish[..3], now), PAUSE_MAX);
        assert_eq!(pace.read_max(now), SLOW_READ_MAX);
        assert_eq!(counters.read().reads_delayed_memory, 21);
        pace.note_shedding(Shedding::Newcomers);
        assert_eq!(pace.memory_until, Time::ZERO);
        assert_eq!(pace.read_max(now), READ_MAX);
    }

    /// Each wait is its own: memory that is there again pays for no message.
    #[test]
    fn the_end_of_a_shortage_does_not_end_the_wait_for_a_rate() {
        let counters = Counters::default();
        let mut pace = Pace::new(Scope::new(&rates(1, 0)), None, None).unwrap();
        let publish = packet(0x32, 5);
        pace.note_handled(&publish, &[], Shedding::Publishers, start(), &counters);
        assert_eq!(pace.memory_until, start() + PAUSE_MIN);
        pace.note_shedding(Shedding::Nothing);
        assert_eq!(pace.memory_until, Time::ZERO);
        assert_eq!(pace.reading.until, start() + SECOND);
    }

    /// What came with a CONNECT is paid for like the rest, when its turn comes.
    #[test]
    fn what_comes_with_a_connect_is_paid_for() {
        let counters = Counters::default();
        let listener = Scope::new(&rates(0, 100));
        let publish = packet(0x30, 148);
        let mut pace = Pace::new(None, None, listener.clone()).unwrap();
        pace.note_rest(publish.len());
        assert_eq!(pace.reading.until, Time::ZERO);
        pace.note_handled(&publish, &[], Shedding::Nothing, start(), &counters);
        assert!(pace.reading.until >= start() + SECOND / 2);
        let until = pace.reading.until;
        pace.note_handled(&[], &[], Shedding::Nothing, start(), &counters);
        assert_eq!(pace.reading.until, until, "once");
    }

    /// C25: one that connects, publishes, and goes, again and again, waits like
    /// everybody; and nobody ever waits long for what it has left unpaid.
    #[test]
    fn who_comes_again_and_again_is_no_quicker() {
        const CHURNING: usize = 8;
        const SECS: u64 = 100;
        let counters = Counters::default();
        for (rates, batch) in [(rates(10, 0), 1), (rates(0, 150), 1), (rates(10, 0), 50)] {
            let publishes = packet(0x30, 13).repeat(batch);
            let listener = Scope::new(&rates);
            let connect = |now: Time| {
                let mut pace = Pace::new(None, None, listener.clone()).unwrap();
                pace.note_rest(publishes.len());
                let until = pace.reading.until.max(now);
                (pace, until)
            };
            let turn = |pace: &mut Pace, now| {
                let len = pace.handled_max(&publishes, now);
                let (handled, left) = publishes.split_at(len);
                pace.note_handled(handled, left, Shedding::Nothing, now, &counters);
                len / 15
            };
            let mut churning: Vec<_> = (0..CHURNING).map(|_| connect(start())).collect();
            let mut steady = connect(start()).0;
            let (mut now, mut handled) = (start(), 0);
            let mut steadily = 0;
            while now < start() + SECS as u32 * SECOND {
                let (next, at) = (churning.iter().map(|(_, until)| *until).enumerate())
                    .min_by_key(|(_, until)| *until)
                    .unwrap();
                if steady.reading.until <= at {
                    now = now.max(steady.reading.until);
                    steady.note_rest(publishes.len());
                    handled += turn(&mut steady, now);
                    steadily += 1;
                    assert!(steady.reading.until <= now + DEBT_MAX);
                } else {
                    now = now.max(at);
                    handled += turn(&mut churning[next].0, now);
                    // It goes without waiting for what it owes.
                    churning[next] = connect(now);
                }
            }
            // The burst, and the last turns.
            assert!(handled as u64 <= 10 * (SECS + 4), "{handled}");
            assert!(steadily >= SECS / 2, "{steadily}");
        }
    }

    /// More than a rate has turns for: none waits for longer than the bound.
    #[test]
    fn a_crowd_that_shares_a_rate_makes_nobody_wait_long() {
        let counters = Counters::default();
        let listener = Scope::new(&rates(1, 1));
        for _ in 0..1000 {
            let mut pace = Pace::new(None, None, listener.clone()).unwrap();
            assert!(pace.reading.until <= start() + DEBT_MAX);
            pace.note_read(1000, start(), &counters);
            assert!(pace.reading.until <= start() + DEBT_MAX);
        }
        let late = Pace::new(None, None, listener.clone()).unwrap();
        assert_eq!(late.reading.until, start() + DEBT_MAX);
        assert_eq!(late.writing.until, Time::ZERO);
    }
}
