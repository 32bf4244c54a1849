//! The protobuf wire format, read in place. It knows no message.

/// A body that is no protobuf, or not of the expected message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::monitor) enum WireError {
    /// It ends inside a field.
    #[error("it is cut short")]
    CutShort,
    /// A varint has more than 64 bits.
    #[error("a number is too long")]
    LongVarint,
    /// A field's tag is zero, or its wire type is not known.
    #[error("a field's tag is invalid")]
    BadTag,
    /// A field has another wire type than its message says.
    #[error("field {0} has the wrong wire type")]
    WrongType(u32),
    /// A string is not UTF-8.
    #[error("field {0} is not valid UTF-8")]
    NotText(u32),
}

/// A field's value by its wire type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::monitor) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::monitor) struct Field<'a> {
    pub(in crate::monitor) number: u32,
    value: Value<'a>,
}

impl<'a> Field<'a> {
    pub(in crate::monitor) const fn varint(self) -> Result<u64, WireError> {
        match self.value {
            Value::Varint(number) => Ok(number),
            Value::Fixed64(_) | Value::Bytes(_) | Value::Fixed32(_) => Err(WireError::WrongType(self.number)),
        }
    }

    pub(in crate::monitor) const fn fixed64(self) -> Result<u64, WireError> {
        match self.value {
            Value::Fixed64(number) => Ok(number),
            Value::Varint(_) | Value::Bytes(_) | Value::Fixed32(_) => Err(WireError::WrongType(self.number)),
        }
    }

    pub(in crate::monitor) const fn double(self) -> Result<f64, WireError> {
        match self.fixed64() {
            Ok(bits) => Ok(f64::from_bits(bits)),
            Err(error) => Err(error),
        }
    }

    pub(in crate::monitor) const fn bytes(self) -> Result<&'a [u8], WireError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Varint(_) | Value::Fixed64(_) | Value::Fixed32(_) => {
                Err(WireError::WrongType(self.number))
            }
        }
    }

    pub(in crate::monitor) fn text(self) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| WireError::NotText(self.number))
    }

    /// The 64-bit numbers that a repeated field adds, packed or not.
    pub(in crate::monitor) fn fixed64s(self) -> Result<impl Iterator<Item = u64>, WireError> {
        let (one, packed): (_, &[u8]) = match self.value {
            Value::Fixed64(number) => (Some(number), &[]),
            Value::Bytes(bytes) if bytes.len() % 8 == 0 => (None, bytes),
            Value::Bytes(_) | Value::Varint(_) | Value::Fixed32(_) => {
                return Err(WireError::WrongType(self.number));
            }
        };
        let (numbers, _) = packed.as_chunks();
        Ok(one.into_iter().chain(numbers.iter().map(|bytes| u64::from_le_bytes(*bytes))))
    }

    /// Adds the numbers that a repeated field adds, packed or not, as far as there is room for `most`.
    pub(in crate::monitor) fn varints(self, into: &mut Vec<u64>, most: usize) -> Result<(), WireError> {
        match self.value {
            Value::Varint(number) if into.len() < most => into.push(number),
            Value::Varint(_) => {}
            Value::Bytes(bytes) => {
                let mut packed = Fields(bytes);
                while !packed.0.is_empty() {
                    let number = packed.varint()?;
                    if into.len() < most {
                        into.push(number);
                    }
                }
            }
            Value::Fixed64(_) | Value::Fixed32(_) => return Err(WireError::WrongType(self.number)),
        }
        Ok(())
    }

    /// The fields of the message in this field.
    pub(in crate::monitor) const fn message(self) -> Result<Fields<'a>, WireError> {
        match self.bytes() {
            Ok(bytes) => Ok(Fields(bytes)),
            Err(error) => Err(error),
        }
    }
}

/// The fields of a message, in order.
#[derive(Clone, Copy, Debug)]
pub(in crate::monitor) struct Fields<'a>(pub(in crate::monitor) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next field; `None` at the message's end.
    #[inline]
    pub(in crate::monitor) fn next(&mut self) -> Result<Option<Field<'a>>, WireError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::BadTag)?;
        if number == 0 {
            return Err(WireError::BadTag);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| WireError::CutShort)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(WireError::CutShort)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(WireError::BadTag),
        };
        Ok(Some(Field { number, value }))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(WireError::CutShort)?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn varint(&mut self) -> Result<u64, WireError> {
        // Nearly all tags and lengths are one byte.
        if let [byte @ 0..=0x7f, rest @ ..] = self.0 {
            self.0 = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let mut number = 0;
        for (place, byte) in self.0.iter().enumerate().take(10) {
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return Err(WireError::LongVarint);
            }
            number |= bits << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(number);
            }
        }
        Err(if self.0.len() < 10 { WireError::CutShort } else { WireError::LongVarint })
    }
}

#[cfg(test)]
mod tests {
    use super::{Fields, WireError};

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        let table: [(&[u8], WireError); 6] = [
            (&[0x08], WireError::CutShort),
            (&[0x08, 0xff], WireError::CutShort),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], WireError::LongVarint),
            (&[0x00, 0x00], WireError::BadTag),
            (&[0x0b, 0x00], WireError::BadTag),
            (&[0x0a, 0x05, 1, 2, 3, 4], WireError::CutShort),
        ];
        for (bytes, error) in table {
            assert_eq!(Fields(bytes).next(), Err(error), "{bytes:?}");
        }
    }

    #[test]
    fn the_largest_number_is_read() {
        let bytes = [0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        let field = Fields(&bytes).next().expect("it is valid").expect("there is one");
        assert_eq!(field.varint(), Ok(u64::MAX));
    }
}
