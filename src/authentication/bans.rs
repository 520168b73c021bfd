//! Who has failed, or connected, too often, or is banned by a person, and is
//! kept out for a while.
//!
//! Owns tables of a fixed size: under a flood those are forgotten first who did
//! least, and nothing grows. Beside them are the names of those that are banned,
//! as far as they have room there: tables know hashes only. Nothing of it
//! outlives the broker.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::config::BanSettings;
use crate::message::{Identity, Time};

/// Entries of a set, in which an address or a client is looked for.
const WAYS: usize = 8;
/// Sets of the table of failures: 1 MiB.
const FAILURE_SETS: usize = 4096;
/// Of the table of connections: 256 KiB.
const CONNECT_SETS: usize = 1024;

/// Bans whose names are known.
const NAMED_MAX: usize = 10_000;

/// Who is banned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Banned {
    /// An address; of IPv6, all that share its first 64 bits.
    Address(IpAddr),
    /// A client identifier; of that user alone, if there is one.
    Client(Box<str>, Option<Arc<str>>),
}

impl Banned {
    /// That address, and those that are banned with it.
    pub fn address(address: IpAddr) -> Banned {
        Banned::Address(network_of(address))
    }

    pub fn client(client: &str) -> Banned {
        Banned::Client(client.into(), None)
    }
}

/// Why somebody is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BannedFor {
    /// Failures to say who it is.
    Failures,
    /// It connected too often.
    Connects,
    /// A person said so.
    Request,
}

/// A ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ban {
    pub why: BannedFor,
    pub until: Time,
}

/// Who is banned, by name.
#[derive(Default)]
struct Names(RwLock<BTreeMap<Banned, Ban>>);

impl Names {
    /// Whether there was room for it.
    fn insert(&self, whom: Banned, ban: Ban, now: Time) -> bool {
        let mut names = self.0.write();
        if names.len() >= NAMED_MAX && !names.contains_key(&whom) {
            names.retain(|_, ban| now < ban.until);
            if names.len() >= NAMED_MAX {
                return false;
            }
        }
        names.insert(whom, ban);
        true
    }

    fn has(&self, whom: impl Fn() -> Option<Banned>, now: Time) -> bool {
        let names = self.0.read();
        // Nobody is, nearly always.
        !names.is_empty()
            && whom().is_some_and(|whom| names.get(&whom).is_some_and(|ban| now < ban.until))
    }

    fn remove(&self, whom: &Banned, now: Time) -> bool {
        let ban = self.0.write().remove(whom);
        ban.is_some_and(|ban| now < ban.until)
    }

    fn list(&self, after: Option<&Banned>, max: usize, now: Time) -> Vec<(Banned, Ban)> {
        let names = self.0.read();
        let first = after.map_or(Unbounded, Excluded);
        let banned = names.range::<Banned, _>((first, Unbounded));
        let banned = banned.filter(|(_, ban)| now < ban.until).take(max);
        banned.map(|(whom, ban)| (whom.clone(), *ban)).collect()
    }
}

/// Failures to say who one is, and the bans that came of them; and those that a
/// person has made.
pub struct Bans {
    settings: RwLock<BanSettings>,
    table: Table,
    names: Names,
}

impl Bans {
    /// Nobody has failed yet.
    pub fn new(settings: BanSettings) -> Bans {
        let key = ahash::RandomState::new();
        let table = Table::new(FAILURE_SETS, key);
        Bans {
            settings: RwLock::new(settings),
            table,
            names: Names::default(),
        }
    }

    /// From now on these hold. Who is banned stays so for as long as that was to
    /// be.
    pub fn set(&self, settings: &BanSettings) {
        self.settings.write().clone_from(settings);
    }

    /// Keeps somebody out until then; false: too many are.
    pub fn ban(&self, whom: Banned, until: Time, now: Time) -> bool {
        let why = BannedFor::Request;
        self.names.insert(whom, Ban { why, until }, now)
    }

    /// Lets somebody in again; false: it was not banned.
    pub fn lift(&self, whom: &Banned, now: Time) -> bool {
        let key = match whom {
            Banned::Address(address) => self.table.key_of(address),
            Banned::Client(client, _) => self.table.key_of(&**client),
        };
        let was_counted = self.table.forget(key, now);
        self.names.remove(whom, now) || was_counted
    }

    /// Who is banned, so many at most after that one, in their order.
    pub fn list(&self, after: Option<&Banned>, max: usize, now: Time) -> Vec<(Banned, Ban)> {
        self.names.list(after, max, now)
    }

    /// Whether a client of that address, if it has one, or identifier is banned.
    pub fn is_banned(&self, address: impl Into<Option<IpAddr>>, client: &str, now: Time) -> bool {
        let address = address.into();
        let keys = self.keys(address, client).into_iter().flatten();
        let mut keys = keys.map(|(key, _)| key);
        keys.any(|key| self.table.is_banned(key, now))
            || self.names.has(|| address.map(Banned::address), now)
            || self.names.has(|| Some(Banned::client(client)), now)
    }

    /// Whether a person has banned that address.
    pub fn is_banned_by_request(&self, address: Option<IpAddr>, now: Time) -> bool {
        let names = self.names.0.read();
        let ban = address.and_then(|address| names.get(&Banned::address(address)));
        ban.is_some_and(|ban| ban.why == BannedFor::Request && now < ban.until)
    }

    /// It has failed; whether it is banned for that from now on.
    pub fn failed(&self, address: impl Into<Option<IpAddr>>, client: &str, now: Time) -> bool {
        let address = address.into();
        let keys = self.keys(address, client);
        let settings = self.settings.read();
        let spans = (settings.within, settings.lasts);
        drop(settings);
        let [of_address, of_client] = keys.map(|key| {
            key.is_some_and(|(key, failures_max)| self.table.count(key, failures_max, spans, now))
        });
        let ban = Ban {
            why: BannedFor::Failures,
            until: now + spans.1,
        };
        if let Some(address) = address.filter(|_| of_address) {
            self.names.insert(Banned::address(address), ban, now);
        }
        if of_client {
            self.names.insert(Banned::client(client), ban, now);
        }
        of_address || of_client
    }

    /// What stands for the two in the table, where they can be banned, and how
    /// many failures are too many.
    fn keys(&self, address: Option<IpAddr>, client: &str) -> [Option<(u64, u32)>; 2] {
        let settings = self.settings.read();
        let of_address = settings.failures_per_address_max;
        let of_client = settings.failures_per_client_max;
        let can_name_itself = of_client > 0 && !client.is_empty();
        [
            (address.filter(|_| of_address > 0))
                .map(|address| (self.table.key_of(&network_of(address)), of_address)),
            can_name_itself.then(|| (self.table.key_of(client), of_client)),
        ]
    }
}

/// How often clients connect, and the bans that came of it.
///
/// A client is an identifier of one user: nobody is kept out by what another
/// user does.
pub struct Flapping {
    settings: RwLock<BanSettings>,
    table: Table,
    names: Names,
}

/// Whether a client may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    Welcome,
    /// From now on it is banned.
    OnceTooOften,
    Banned,
}

impl Flapping {
    /// Nobody has connected yet. `key`: by which clients are told apart.
    pub fn new(settings: &BanSettings, key: ahash::RandomState) -> Flapping {
        Flapping {
            settings: RwLock::new(settings.clone()),
            table: Table::new(CONNECT_SETS, key),
            names: Names::default(),
        }
    }

    /// From now on these hold; bans stay.
    pub fn set(&self, settings: &BanSettings) {
        self.settings.write().clone_from(settings);
    }

    /// Lets a client in again, whoever its users are; false: it was not banned.
    pub fn lift(&self, client: &str, now: Time) -> bool {
        let mut was_banned = false;
        for (whom, _) in self.of_client(client, now) {
            let Banned::Client(_, user) = &whom else {
                continue;
            };
            self.table.forget(self.table.key_of(&(user, client)), now);
            was_banned |= self.names.remove(&whom, now);
        }
        was_banned
    }

    fn of_client(&self, client: &str, now: Time) -> Vec<(Banned, Ban)> {
        let mut banned = self.names.list(None, NAMED_MAX, now);
        banned.retain(|(whom, _)| matches!(whom, Banned::Client(name, _) if **name == *client));
        banned
    }

    /// Who is banned, so many at most after that one, in their order.
    pub fn list(&self, after: Option<&Banned>, max: usize, now: Time) -> Vec<(Banned, Ban)> {
        self.names.list(after, max, now)
    }

    /// It is known who it is, and it wants to connect.
    pub fn connects(&self, identity: &Identity, now: Time) -> Connecting {
        let settings = self.settings.read();
        let connects_max = settings.connects_per_client_max;
        let spans = (settings.connects_within, settings.lasts);
        drop(settings);
        if connects_max == 0 {
            return Connecting::Welcome;
        }
        let key = (self.table).key_of(&(&identity.user, identity.client.as_str()));
        if self.table.is_banned(key, now) {
            return Connecting::Banned;
        }
        if !self.table.count(key, connects_max + 1, spans, now) {
            return Connecting::Welcome;
        }
        let (why, until) = (BannedFor::Connects, now + spans.1);
        let whom = Banned::Client(identity.client.as_str().into(), identity.user.clone());
        self.names.insert(whom, Ban { why, until }, now);
        Connecting::OnceTooOften
    }
}

/// Who did something how often.
struct Table {
    sets: usize,
    key: ahash::RandomState,
    // Empty until somebody does.
    entries: Mutex<Vec<Entry>>,
}

/// Of one address or client. All zero: of nobody.
#[derive(Clone, Copy, Default)]
struct Entry {
    // Its hash.
    of: u64,
    since: Time,
    count: u32,
    // Banned until then; zero: not banned.
    until: Time,
}

impl Table {
    fn new(sets: usize, key: ahash::RandomState) -> Table {
        Table {
            sets,
            key,
            entries: Mutex::default(),
        }
    }

    fn key_of(&self, whom: &(impl Hash + ?Sized)) -> u64 {
        self.key.hash_one(whom)
    }

    fn is_banned(&self, key: u64, now: Time) -> bool {
        let entries = self.entries.lock();
        let set = entries.get(self.set_of(key)).unwrap_or_default();
        (set.iter()).any(|entry| entry.of == key && now < entry.until)
    }

    /// Once more; whether that is `max` times within the time, and it is banned
    /// for the other one from now on.
    fn count(&self, key: u64, max: u32, (within, lasts): (Duration, Duration), now: Time) -> bool {
        let mut entries = self.entries.lock();
        if entries.is_empty() {
            entries.resize(self.sets * WAYS, Entry::default());
        }
        let set = &mut entries[self.set_of(key)];
        let found = set.iter().position(|entry| entry.of == key);
        let place = found.unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|way| weight(&set[*way], within, now));
            least.unwrap_or_default()
        });
        let entry = &mut set[place];
        if found.is_none() || now >= entry.since + within {
            // A failure that was under way when the ban came does not lift it.
            let until = found.map(|_| entry.until).filter(|until| now < *until);
            *entry = Entry {
                of: key,
                since: now,
                count: 0,
                until: until.unwrap_or_default(),
            };
        }
        entry.count += 1;
        let is_banned = entry.count >= max;
        if is_banned {
            *entry = Entry {
                of: key,
                since: now,
                count: 0,
                until: now + lasts,
            };
        }
        is_banned
    }

    /// It did nothing; whether it was banned.
    fn forget(&self, key: u64, now: Time) -> bool {
        let mut entries = self.entries.lock();
        let set = entries.get_mut(self.set_of(key)).unwrap_or_default();
        let entry = set.iter_mut().find(|entry| entry.of == key);
        let forgotten = entry.map(std::mem::take);
        forgotten.is_some_and(|entry| now < entry.until)
    }

    fn set_of(&self, key: u64) -> Range<usize> {
        let first = key as usize % self.sets * WAYS;
        first..first + WAYS
    }
}

/// What is lost when it is forgotten: a ban most, then many times.
fn weight(entry: &Entry, within: Duration, now: Time) -> (bool, u32, Time) {
    match (now < entry.until, now < entry.since + within) {
        (true, _) => (true, 0, entry.until),
        (false, true) => (false, entry.count, entry.since),
        (false, false) => (false, 0, entry.since),
    }
}

/// Of IPv6, what one customer gets: the first 64 bits.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::message::ClientId;

    const MINUTE: Duration = Duration::from_secs(60);

    fn bans(failures_per_address_max: u32, failures_per_client_max: u32) -> Bans {
        Bans::new(BanSettings {
            failures_per_address_max,
            failures_per_client_max,
            within: MINUTE,
            connects_per_client_max: 0,
            connects_within: MINUTE,
            lasts: 5 * MINUTE,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn so_many_failures_within_the_time_and_not_for_ever() {
        let bans = bans(3, 0);
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let start = Time::ZERO + MINUTE;
        assert!(!bans.failed(a, "x", start));
        assert!(!bans.failed(a, "y", start + MINUTE / 2));
        // The first is too long ago.
        assert!(!bans.failed(a, "z", start + MINUTE));
        assert!(!bans.failed(a, "z", start + MINUTE));
        assert!(bans.failed(a, "z", start + MINUTE));
        let banned = start + MINUTE;
        assert!(bans.is_banned(a, "any", banned));
        assert!(bans.is_banned(ip("::ffff:192.0.2.1"), "any", banned));
        assert!(!bans.is_banned(b, "z", banned));
        assert!(bans.is_banned(a, "any", banned + 5 * MINUTE - Duration::from_micros(1)));
        assert!(!bans.is_banned(a, "any", banned + 5 * MINUTE));
        assert!(!bans.failed(a, "any", banned + 5 * MINUTE));
    }

    /// One whose password was still being hashed when the ban came.
    #[test]
    fn a_late_failure_does_not_lift_a_ban() {
        let bans = bans(2, 0);
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let start = Time::ZERO + MINUTE;
        assert!(!bans.failed(a, "x", start));
        assert!(bans.failed(a, "x", start));
        assert!(!bans.failed(a, "x", start + 2 * MINUTE));
        assert!(bans.is_banned(a, "x", start + 2 * MINUTE));
        assert!(!bans.is_banned(b, "x", start + 2 * MINUTE));
        // Nor does it make it longer, unless it is one too many again.
        assert!(!bans.is_banned(a, "x", start + 5 * MINUTE));
        assert!(bans.failed(a, "x", start + 2 * MINUTE));
        assert!(bans.is_banned(a, "x", start + 5 * MINUTE));
    }

    #[test]
    fn one_client_from_many_addresses_and_one_network() {
        let bans = bans(0, 2);
        let now = Time::ZERO + MINUTE;
        assert!(!bans.failed(ip("192.0.2.1"), "x", now));
        assert!(!bans.failed(ip("192.0.2.1"), "y", now));
        assert!(bans.failed(ip("192.0.2.2"), "x", now));
        assert!(bans.is_banned(ip("192.0.2.3"), "x", now));
        assert!(!bans.is_banned(ip("192.0.2.2"), "y", now));
        // Who has no identifier of its own is not one client.
        assert!(!bans.failed(ip("192.0.2.2"), "", now));
        assert!(!bans.failed(ip("192.0.2.2"), "", now));
        assert!(!bans.is_banned(ip("192.0.2.2"), "", now));
        let bans = self::bans(2, 0);
        assert!(!bans.failed(ip("2001:db8::1"), "x", now));
        assert!(bans.failed(ip("2001:db8::2"), "x", now));
        assert!(!bans.is_banned(ip("2001:db8:0:1::2"), "x", now));
    }

    /// A flood of others takes no more memory, and a ban outlives most of them.
    /// Case C56 of docs/security.md.
    #[test]
    fn the_table_does_not_grow() {
        let bans = bans(3, 0);
        let now = Time::ZERO + MINUTE;
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let (banned, near) = (address(u32::MAX), address(u32::MAX - 1));
        for _ in 0..2 {
            assert!(!bans.failed(banned, "", now));
            assert!(!bans.failed(near, "", now));
        }
        assert!(bans.failed(banned, "", now));
        for number in 0..10 * (FAILURE_SETS * WAYS) as u32 {
            assert!(!bans.failed(address(number), "", now));
        }
        assert_eq!(bans.table.entries.lock().len(), FAILURE_SETS * WAYS);
        assert!(bans.is_banned(banned, "", now));
        assert!(bans.failed(near, "", now), "it did more than the others");
        // Nobody is banned where nobody is to be.
        let never = self::bans(0, 0);
        for _ in 0..100 {
            assert!(!never.failed(banned, "x", now));
        }
        assert!(!never.is_banned(banned, "x", now));
    }

    /// Of a person, and of failures; each is told, and can be lifted.
    #[test]
    fn bans_are_told_by_name_and_can_be_lifted() {
        let bans = bans(1, 1);
        let now = Time::ZERO + MINUTE;
        let (a, b, six) = (ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::7"));
        assert!(bans.failed(a, "x", now));
        assert!(bans.ban(Banned::address(six), now + MINUTE, now));
        assert!(bans.ban(Banned::client("y"), Time::MAX, now));
        let names = |after: Option<&Banned>, max| {
            let list = bans.list(after, max, now);
            list.into_iter()
                .map(|(whom, ban)| (whom, ban.why))
                .collect::<Vec<_>>()
        };
        let expected = [
            (Banned::address(a), BannedFor::Failures),
            (Banned::Address(ip("2001:db8::")), BannedFor::Request),
            (Banned::client("x"), BannedFor::Failures),
            (Banned::client("y"), BannedFor::Request),
        ];
        assert_eq!(names(None, 9), expected);
        assert_eq!(names(None, 2), expected[..2]);
        assert_eq!(names(Some(&expected[1].0), 9), expected[2..]);
        assert!(bans.is_banned(ip("2001:db8::8"), "z", now));
        assert!(!bans.is_banned(ip("2001:db8:0:1::8"), "z", now));
        assert!(!bans.is_banned(six, "z", now + MINUTE));
        assert!(bans.is_banned(b, "y", now + 1000 * MINUTE));
        for (whom, _) in &expected {
            assert!(bans.lift(whom, now), "{whom:?}");
            assert!(!bans.lift(whom, now), "{whom:?}");
        }
        for client in ["x", "y", "z"] {
            assert!(!bans.is_banned(a, client, now) && !bans.is_banned(six, client, now));
        }
        assert_eq!(names(None, 9), []);
    }

    #[test]
    fn no_more_names_are_kept_than_there_is_room_for() {
        let bans = bans(1, 0);
        let now = Time::ZERO + MINUTE;
        for number in 0..NAMED_MAX {
            assert!(bans.ban(Banned::client(&number.to_string()), now + MINUTE, now));
        }
        assert!(!bans.ban(Banned::client("x"), now + 9 * MINUTE, now));
        assert!(
            bans.ban(Banned::client("7"), now + 9 * MINUTE, now),
            "it has a place"
        );
        // It is banned all the same.
        assert!(bans.failed(ip("192.0.2.1"), "", now));
        assert!(bans.is_banned(ip("192.0.2.1"), "", now));
        let later = now + MINUTE;
        assert!(bans.ban(Banned::client("x"), later + MINUTE, later));
        assert_eq!(bans.list(None, 9, later).len(), 2);
    }

    #[test]
    fn who_connected_too_often_can_be_let_in_again() {
        let flapping = flapping(1);
        let now = Time::ZERO + MINUTE;
        let clients = [identity(None, "x"), identity(Some("ann"), "x")];
        for client in &clients {
            flapping.connects(client, now);
            assert_eq!(flapping.connects(client, now), Connecting::OnceTooOften);
        }
        let listed = flapping.list(None, 9, now);
        assert_eq!(listed.len(), 2);
        assert!(listed.iter().all(|(_, ban)| ban.why == BannedFor::Connects));
        assert!(!flapping.lift("y", now));
        assert!(flapping.lift("x", now));
        assert_eq!(flapping.list(None, 9, now), []);
        for client in &clients {
            assert_eq!(flapping.connects(client, now), Connecting::Welcome);
        }
    }

    fn flapping(connects_per_client_max: u32) -> Flapping {
        let settings = BanSettings {
            connects_per_client_max,
            ..bans(0, 0).settings.into_inner()
        };
        Flapping::new(&settings, ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    fn identity(user: Option<&str>, client: &str) -> Identity {
        Identity {
            user: user.map(Into::into),
            client: ClientId::new(client),
        }
    }

    /// F10, C25: at 1, at more, and at the most that can be set.
    #[test]
    fn one_connection_too_many_and_the_client_is_banned() {
        let start = Time::ZERO + MINUTE;
        for max in [1, 2, 1000] {
            let flapping = flapping(max);
            let client = identity(None, "x");
            for _ in 0..max {
                assert_eq!(flapping.connects(&client, start), Connecting::Welcome);
            }
            assert_eq!(flapping.connects(&client, start), Connecting::OnceTooOften);
            for after in [Duration::ZERO, 5 * MINUTE - Duration::from_micros(1)] {
                assert_eq!(
                    flapping.connects(&client, start + after),
                    Connecting::Banned
                );
            }
            let after = start + 5 * MINUTE;
            assert_eq!(flapping.connects(&client, after), Connecting::Welcome);
            // Slowly enough it may go on for ever.
            for minute in 1..100 {
                let now = after + minute * MINUTE;
                assert_eq!(flapping.connects(&client, now), Connecting::Welcome);
            }
        }
        for never in [flapping(0), flapping(1_000_000)] {
            for _ in 0..2000 {
                let welcome = never.connects(&identity(None, "x"), start);
                assert_eq!(welcome, Connecting::Welcome);
            }
        }
    }

    #[test]
    fn what_another_user_does_keeps_nobody_out() {
        let flapping = flapping(1);
        let now = Time::ZERO + MINUTE;
        for (user, client) in [
            (Some("eve"), "x"),
            (None, "x"),
            (Some("ann"), "y"),
            // Not the same, put together.
            (Some("a"), "nnx"),
            (Some("annx"), ""),
        ] {
            let identity = identity(user, client);
            assert_eq!(flapping.connects(&identity, now), Connecting::Welcome);
            assert_eq!(flapping.connects(&identity, now), Connecting::OnceTooOften);
        }
        let ann = identity(Some("ann"), "x");
        assert_eq!(flapping.connects(&ann, now), Connecting::Welcome);
    }

    /// Others that come and go do not hide one that does so all the time.
    #[test]
    fn a_storm_of_others_takes_no_more_memory() {
        let flapping = flapping(100);
        let now = Time::ZERO + MINUTE;
        let flapper = identity(None, "flapper");
        let mut last = Connecting::Welcome;
        for number in 0..=100 {
            last = flapping.connects(&flapper, now);
            for other in 0..200 {
                let other = identity(None, &format!("{number} {other}"));
                assert_eq!(flapping.connects(&other, now), Connecting::Welcome);
            }
        }
        assert_eq!(last, Connecting::OnceTooOften);
        assert_eq!(flapping.table.entries.lock().len(), CONNECT_SETS * WAYS);
    }
}
