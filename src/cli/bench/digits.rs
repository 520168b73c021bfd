//! Numbers in a packet that differ from message to message: digits that stand
//! always in the same place, and count.

/// As many zeros as the highest number below `count` has digits.
pub fn zeros(count: u32) -> String {
    "0".repeat(count.saturating_sub(1).to_string().len())
}

/// A number in a packet that takes the values below a count in turns, and
/// begins anew.
#[derive(Clone, Debug)]
pub struct Digits {
    /// Where they stand in the packet.
    at: usize,
    width: usize,
    count: u32,
    /// From one to the next; it and `count` have no factor in common.
    stride: u32,
    now: u32,
}

impl Digits {
    /// The [`zeros`] at this place, which count to `count`, one by one.
    pub fn new(at: usize, count: u32) -> Digits {
        Digits {
            at,
            width: zeros(count).len(),
            count,
            stride: 1,
            now: 0,
        }
    }

    /// Takes the values in an order that leaps: each once a round, and
    /// neighbours in time far from each other.
    pub fn leaping(self) -> Digits {
        Digits {
            stride: far_stride(self.count),
            ..self
        }
    }

    /// Goes on by one.
    pub fn advance(&mut self, packet: &mut [u8]) {
        let digits = &mut packet[self.at..][..self.width];
        let mut more = self.stride;
        self.now += self.stride;
        if self.now >= self.count {
            self.now -= self.count;
            digits.fill(b'0');
            more = self.now;
        }
        for digit in digits.iter_mut().rev() {
            if more == 0 {
                return;
            }
            more += u32::from(*digit - b'0');
            *digit = b'0' + (more % 10) as u8;
            more /= 10;
        }
    }

    /// Goes on by the `part`th of so many `parts` of its round.
    pub fn advance_by_part(&mut self, part: usize, parts: usize, packet: &mut [u8]) {
        for _ in 0..part * self.count as usize / parts {
            self.advance(packet);
        }
    }
}

/// The number closest below the golden section of `count` that has no factor
/// in common with it: steps of it come to all numbers below `count`, and
/// close to no recent one.
pub fn far_stride(count: u32) -> u32 {
    let section = (f64::from(count) * 0.618_034) as u32;
    let strides = (1..=section).rev();
    let mut coprime = strides.filter(|stride| greatest_common_divisor(*stride, count) == 1);
    coprime.next().unwrap_or(1)
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in the packet over so many messages.
    fn values(mut digits: Digits, messages: usize) -> Vec<u32> {
        let mut packet = format!("..{}..", zeros(digits.count)).into_bytes();
        let mut values = Vec::new();
        for _ in 0..messages {
            let text = std::str::from_utf8(&packet[2..packet.len() - 2]).unwrap();
            values.push(text.parse().unwrap());
            digits.advance(&mut packet);
        }
        assert!(packet.starts_with(b"..") && packet.ends_with(b".."));
        values
    }

    #[test]
    fn count_and_begin_anew() {
        for count in [1, 2, 9, 10, 11, 100, 1234] {
            let expected: Vec<u32> = (0..count).chain(0..count).collect();
            assert_eq!(values(Digits::new(2, count), expected.len()), expected);
        }
    }

    #[test]
    fn leap_to_each_number_once_a_round() {
        for count in [1, 2, 3, 10, 12, 1000, 1001, 20_000] {
            let mut round = values(Digits::new(2, count).leaping(), count as usize);
            let far = round
                .windows(2)
                .all(|pair| pair[0].abs_diff(pair[1]) > count / 4);
            assert!(far || count < 12, "{count}: {round:?}");
            round.sort();
            assert!(round.into_iter().eq(0..count), "{count}");
        }
    }

    #[test]
    fn go_on_by_a_part_of_a_round() {
        let mut packet = b"00".to_vec();
        Digits::new(0, 12).advance_by_part(2, 4, &mut packet);
        assert_eq!(packet, b"06");
    }
}
