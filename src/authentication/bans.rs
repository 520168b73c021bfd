//! Who has failed too often, and is not asked any more for a while.
//!
//! Owns a table of fixed size: under a flood the failures that are longest ago
//! are forgotten first, and nothing grows.

use std::net::{IpAddr, Ipv6Addr};

use parking_lot::Mutex;

use crate::config::BanSettings;
use crate::message::Time;

/// Sets of the table, a power of two, and the entries of each: 1 MiB at most.
const SETS: usize = 4096;
const WAYS: usize = 8;

/// Failures, and the bans that came of them.
pub struct Bans {
    settings: BanSettings,
    key: ahash::RandomState,
    table: Mutex<Vec<Failures>>,
}

/// Of one address or client identifier. All zero: of nobody.
#[derive(Clone, Copy, Default)]
struct Failures {
    // Its hash.
    of: u64,
    since: Time,
    count: u32,
    // Banned until then; zero: not banned.
    until: Time,
}

impl Bans {
    /// Nobody has failed yet.
    pub fn new(settings: BanSettings) -> Bans {
        Bans {
            settings,
            key: ahash::RandomState::new(),
            table: Mutex::new(vec![Failures::default(); SETS * WAYS]),
        }
    }

    /// Whether a client of that address, if it has one, or identifier is banned.
    pub fn is_banned(&self, address: impl Into<Option<IpAddr>>, client: &str, now: Time) -> bool {
        let keys = self.keys(address.into(), client);
        let mut keys = keys.into_iter().flatten().peekable();
        if keys.peek().is_none() {
            return false;
        }
        let table = self.table.lock();
        keys.any(|(key, _)| {
            let mut set = table[set_of(key)].iter();
            set.any(|entry| entry.of == key && now < entry.until)
        })
    }

    /// It has failed; whether it is banned for that from now on.
    pub fn failed(&self, address: impl Into<Option<IpAddr>>, client: &str, now: Time) -> bool {
        let mut is_banned = false;
        for (key, failures_max) in self.keys(address.into(), client).into_iter().flatten() {
            let mut table = self.table.lock();
            let set = &mut table[set_of(key)];
            let found = set.iter().position(|entry| entry.of == key);
            let place = found.unwrap_or_else(|| {
                let oldest = (0..WAYS).min_by_key(|way| set[*way].until.max(set[*way].since));
                oldest.unwrap_or_default()
            });
            let entry = &mut set[place];
            if found.is_none() || now >= entry.since + self.settings.within {
                *entry = Failures {
                    of: key,
                    since: now,
                    ..Failures::default()
                };
            }
            entry.count += 1;
            if entry.count >= failures_max {
                *entry = Failures {
                    of: key,
                    since: now,
                    count: 0,
                    until: now + self.settings.lasts,
                };
                is_banned = true;
            }
        }
        is_banned
    }

    /// What stands for the two in the table, where they can be banned, and how
    /// many failures are too many.
    fn keys(&self, address: Option<IpAddr>, client: &str) -> [Option<(u64, u32)>; 2] {
        let settings = &self.settings;
        let of_address = settings.failures_per_address_max;
        let of_client = settings.failures_per_client_max;
        let can_name_itself = of_client > 0 && !client.is_empty();
        [
            (address.filter(|_| of_address > 0))
                .map(|address| (self.key.hash_one(network_of(address)), of_address)),
            can_name_itself.then(|| (self.key.hash_one(client), of_client)),
        ]
    }
}

/// Of IPv6, what one customer gets: the first 64 bits.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            Ipv6Addr::from_bits(network).into()
        }
    }
}

fn set_of(key: u64) -> std::ops::Range<usize> {
    let first = key as usize % SETS * WAYS;
    first..first + WAYS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn bans(failures_per_address_max: u32, failures_per_client_max: u32) -> Bans {
        Bans::new(BanSettings {
            failures_per_address_max,
            failures_per_client_max,
            within: MINUTE,
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
        let bans = bans(2, 0);
        let now = Time::ZERO + MINUTE;
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        let banned = address(u32::MAX);
        bans.failed(banned, "", now);
        assert!(bans.failed(banned, "", now));
        for number in 0..10 * (SETS * WAYS) as u32 {
            assert!(!bans.failed(address(number), "", now));
        }
        assert_eq!(bans.table.lock().len(), SETS * WAYS);
        assert!(bans.is_banned(banned, "", now));
        // Nobody is banned where nobody is to be.
        let never = self::bans(0, 0);
        for _ in 0..100 {
            assert!(!never.failed(banned, "x", now));
        }
        assert!(!never.is_banned(banned, "x", now));
    }
}
