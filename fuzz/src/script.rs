//! A script: a fuzzer's bytes read as choices, so that it finds its way past signatures and checksums.
//!
//! It draws no randomness. Invariant: it never fails; when the bytes are at their end, every choice is the first.

/// What is left of an input.
#[derive(Clone, Debug)]
pub struct Script<'a> {
    rest: &'a [u8],
}

impl<'a> Script<'a> {
    /// The script in these bytes.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte; 0 at the end.
    pub fn byte(&mut self) -> u8 {
        match self.rest.split_first() {
            Some((byte, rest)) => {
                self.rest = rest;
                *byte
            }
            None => 0,
        }
    }

    /// One of so many things, from 0.
    pub fn pick(&mut self, of: usize) -> usize {
        usize::from(self.byte()) % of.max(1)
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number: small ones, those at the ends of ranges, and any other.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small),
            200..=207 => u64::MAX,
            208..=215 => u64::MAX - u64::from(self.byte()),
            216..=221 => i64::MAX.unsigned_abs(),
            222..=227 => u64::from(u32::MAX) + u64::from(self.byte()),
            228..=239 => u64::from(u16::from_le_bytes([self.byte(), self.byte()])),
            240..=255 => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    /// The next bytes, as many as the next two say, or as are left.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        self.take(length)
    }

    /// So many bytes, or as many as are left.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Changes bytes as the script says: flips, cuts, repeats, inserts.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.pick(4) {
            let place = usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % bytes.len().max(1);
            match self.pick(6) {
                0 => bytes.truncate(place),
                1 => bytes.extend_from_slice(self.bytes()),
                2 => bytes.splice(place..place, std::iter::once(self.byte())).for_each(drop),
                3 if !bytes.is_empty() => drop(bytes.remove(place)),
                _ => {
                    let byte = self.byte();
                    if let Some(changed) = bytes.get_mut(place) {
                        *changed ^= byte.max(1);
                    }
                }
            }
        }
    }
}
