//! Who has failed, or connected, too often, and is kept out for a while.
//!
//! Owns tables of a fixed size: under a flood those are forgotten first who did
//! least, and nothing grows.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Range;
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

/// Failures to say who one is, and the bans that came of them.
pub struct Bans {
    settings: RwLock<BanSettings>,
    table: Table,
}

impl Bans {
    /// Nobody has failed yet.
    pub fn new(settings: BanSettings) -> Bans {
        let key = ahash::RandomState::new();
        let table = Table::new(FAILURE_SETS, key);
        Bans {
            settings: RwLock::new(settings),
            table,
        }
    }

    /// From now on these hold. Who is banned stays so for as long as that was to
    /// be.
    pub fn set(&self, settings: &BanSettings) {
        self.settings.write().clone_from(settings);
    }

    /// Whether a client of that address, if it has one, or identifier is banned.
    pub fn is_banned(&self, address: impl Into<Option<IpAddr>>, client: &str, now: Time) -> bool {
        let keys = self.keys(address.into(), client).into_iter().flatten();
        let mut keys = keys.map(|(key, _)| key);
        keys.any(|key| self.table.is_banned(key, now))
    }

    /// It has failed; whether it is banned for that from now on.
    pub fn failed(&self, address: impl Into<Option<IpAddr>>, client: &str, now: Time) -> bool {
        let keys = self.keys(address.into(), client).into_iter().flatten();
        let settings = self.settings.read();
        let spans = (settings.within, settings.lasts);
        drop(settings);
        keys.fold(false, |is_banned, (key, failures_max)| {
            self.table.count(key, failures_max, spans, now) || is_banned
        })
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
        }
    }

    /// From now on these hold; bans stay.
    pub fn set(&self, settings: &BanSettings) {
        self.settings.write().clone_from(settings);
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
        match self.table.count(key, connects_max + 1, spans, now) {
            true => Connecting::OnceTooOften,
            false => Connecting::Welcome,
        }
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
