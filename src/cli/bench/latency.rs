//! How long the broker takes: from PUBLISH to delivery, and from PUBLISH to
//! its acknowledgement.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer ones count as that.
const NS_MAX: u64 = 3_600_000_000_000;

/// Of nanoseconds, none so far; it will keep three digits.
pub fn histogram() -> Histogram<u64> {
    let empty = Histogram::new_with_bounds(1, NS_MAX, 3);
    empty.expect("the bounds and digits are valid")
}

/// What was recorded, in nanoseconds.
#[derive(Clone, Debug)]
pub struct Latencies {
    pub delivery: Histogram<u64>,
    /// To PUBACK, or to PUBREC at QoS 2.
    pub acknowledgement: Histogram<u64>,
}

impl Latencies {
    /// Nothing so far.
    pub fn new() -> Latencies {
        Latencies {
            delivery: histogram(),
            acknowledgement: histogram(),
        }
    }

    /// Adds what another thread has recorded.
    pub fn add(&mut self, other: &Latencies) {
        const ALIKE: &str = "all histograms have the same bounds";
        self.delivery.add(&other.delivery).expect(ALIKE);
        let acknowledgement = &other.acknowledgement;
        self.acknowledgement.add(acknowledgement).expect(ALIKE);
    }

    pub fn record_delivery(&mut self, age_ns: u64, count: u64) {
        self.delivery.saturating_record_n(age_ns.max(1), count);
    }

    pub fn record_acknowledgement(&mut self, age: Duration) {
        let age_ns = age.as_nanos() as u64;
        self.acknowledgement.saturating_record(age_ns.max(1));
    }
}

/// When a publisher sent what has each packet identifier.
///
/// In microseconds, of which 32 bits last for 71 minutes: the longest time
/// that can be told.
#[derive(Debug)]
pub struct SendTimes {
    us: Box<[u32]>,
}

impl SendTimes {
    /// Takes no memory before it is used.
    pub fn new() -> SendTimes {
        SendTimes {
            us: vec![0; 1 << 16].into_boxed_slice(),
        }
    }

    /// `now`: since the start of the run.
    pub fn note(&mut self, packet_id: u16, now: Duration) {
        self.us[usize::from(packet_id)] = now.as_micros() as u32;
    }

    /// How long ago it was sent.
    pub fn age(&self, packet_id: u16, now: Duration) -> Duration {
        let us = (now.as_micros() as u32).wrapping_sub(self.us[usize::from(packet_id)]);
        Duration::from_micros(us.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_age_of_each_identifier() {
        let mut times = SendTimes::new();
        let hour = Duration::from_secs(3600);
        let ms = Duration::from_millis;
        times.note(u16::MAX, hour);
        times.note(1, hour + ms(2));
        assert_eq!(times.age(u16::MAX, hour + ms(3)), ms(3));
        assert_eq!(times.age(1, hour + ms(3)), ms(1));
        // The 32 bits end in between.
        assert_eq!(times.age(1, hour + ms(700_002)), ms(700_000));
    }

    #[test]
    fn adds_what_the_threads_have_recorded() {
        let mut all = Latencies::new();
        for us in [1, 2, 3] {
            let mut one = Latencies::new();
            one.record_delivery(us * 1000, 10);
            one.record_acknowledgement(Duration::from_micros(us * 10));
            all.add(&one);
        }
        assert_eq!((all.delivery.len(), all.acknowledgement.len()), (30, 3));
        assert_eq!(all.delivery.value_at_quantile(0.5) / 100, 20);
        assert_eq!(all.acknowledgement.value_at_quantile(0.5) / 1000, 20);
    }
}
