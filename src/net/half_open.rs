//! How many connections of one address are not through with CONNECT.
//!
//! Owns the counts, of which there are no more than such connections. Who is
//! one too many is the caller's to close.

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::PeerAddress;
use crate::authentication::network_of;

/// The counts of all addresses.
pub struct HalfOpen {
    // 0: any number.
    per_address_max: AtomicU32,
    counts: Mutex<std::collections::HashMap<IpAddr, u32, ahash::RandomState>>,
}

/// Counts a connection until it is dropped.
#[derive(Default)]
pub struct Place(Option<(Arc<HalfOpen>, IpAddr)>);

impl HalfOpen {
    pub fn new(per_address_max: u32) -> HalfOpen {
        HalfOpen {
            per_address_max: AtomicU32::new(per_address_max),
            counts: Mutex::default(),
        }
    }

    /// So many from now on; who came while any number could is not counted.
    pub fn set_max(&self, per_address_max: u32) {
        let max = &self.per_address_max;
        max.store(per_address_max, Ordering::Relaxed);
    }

    /// A place for one more of this address; `None`: it has too many. Who comes
    /// by a Unix socket has none, and is not counted.
    pub fn enter(self: &Arc<Self>, address: PeerAddress) -> Option<Place> {
        let max = self.per_address_max.load(Ordering::Relaxed);
        let Some(address) = address.ip().filter(|_| max > 0) else {
            return Some(Place::default());
        };
        let network = network_of(address);
        let mut counts = self.counts.lock();
        let count = counts.entry(network).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place(Some((self.clone(), network))))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((all, network)) = self.0.take() else {
            return;
        };
        if let Entry::Occupied(mut entry) = all.counts.lock().entry(network) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().unwrap())
    }

    /// C25: at 1 and at more; of IPv6, a network is one.
    #[test]
    fn each_address_has_its_own() {
        for max in [1, 2, 7] {
            let all = Arc::new(HalfOpen::new(max));
            for one in ["192.0.2.1:1", "[2001:db8::1]:1"] {
                let mut places: Vec<_> = (0..max).map(|_| all.enter(peer(one)).unwrap()).collect();
                assert!(all.enter(peer(one)).is_none());
                places.pop();
                places.push(all.enter(peer(one)).unwrap());
                assert!(all.enter(peer("192.0.2.2:1")).is_some());
                assert!(all.enter(peer("[2001:db8:0:1::1]:1")).is_some());
                let same = ["[::ffff:192.0.2.1]:9", "[2001:db8::ffff:1]:9"];
                let taken = same.map(|address| all.enter(peer(address)).is_none());
                assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
            }
            assert!(all.counts.lock().is_empty(), "nothing is left behind");
        }
    }

    #[test]
    fn where_any_number_may_come_nobody_is_counted() {
        let all = Arc::new(HalfOpen::new(0));
        let places: Vec<_> = (0..1000).map(|_| all.enter(peer("192.0.2.1:1"))).collect();
        assert!(places.iter().all(Option::is_some));
        let all = Arc::new(HalfOpen::new(1));
        let unix: Vec<_> = (0..1000).map(|_| all.enter(PeerAddress::Unix)).collect();
        assert!(unix.iter().all(Option::is_some));
        assert!(all.counts.lock().is_empty());
    }
}
