//! Measured values in fixed point, so that adding them up gives the same bits in any order and on any
//! machine. Nothing past the telemetry door holds a floating-point number.

use borsh::{BorshDeserialize, BorshSerialize};
use std::{fmt, str::FromStr};

/// A measured value: a whole number of billionths (10^-9) in 128 bits, so its range is about ±1.7e29.
///
/// Sums saturate at the range's ends; divisions round toward zero. Values whose size is below 10^-9 are 0.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Quantity(i128);

/// Why a value is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// It is infinite or not a number.
    #[error("the value is not finite")]
    NotFinite,
    /// It is too large.
    #[error("the value is outside ±1e29")]
    OutOfRange,
    /// The text is not a decimal number.
    #[error("{0:?} is not a decimal number with at most 9 digits after the point")]
    NotDecimal(String),
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// One.
    pub const ONE: Self = Self(Self::UNIT);
    /// How many decimal places the unit has.
    pub const SCALE: u32 = 9;
    const UNIT: i128 = 1_000_000_000;

    /// Rounds a finite floating-point value to the nearest billionth, halves away from zero.
    ///
    /// # Errors
    /// [`QuantityError`] when the value is not finite or outside ±1e29.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range is checked first, and the scaled value is a whole number"
    )]
    pub fn from_f64(value: f64) -> Result<Self, QuantityError> {
        if !value.is_finite() {
            return Err(QuantityError::NotFinite);
        }
        if value.abs() > 1e29 {
            return Err(QuantityError::OutOfRange);
        }
        // The whole part is exact in 128 bits; only the fraction is scaled, so large values lose nothing.
        let whole = value.trunc();
        let fraction = ((value - whole) * 1e9).round();
        Ok(Self(whole as i128 * Self::UNIT + fraction as i128))
    }

    /// A whole number.
    #[must_use]
    pub const fn from_i64(value: i64) -> Self {
        Self(value as i128 * Self::UNIT)
    }

    /// A whole number without a sign.
    #[must_use]
    pub const fn from_u64(value: u64) -> Self {
        Self(value as i128 * Self::UNIT)
    }

    /// A number of billionths.
    #[must_use]
    pub const fn from_nanos(nanos: i128) -> Self {
        Self(nanos)
    }

    /// The number of billionths.
    #[must_use]
    pub const fn as_nanos(self) -> i128 {
        self.0
    }

    /// The nearest floating-point value, for people and dashboards.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a display value")]
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// The whole part as an integer when the value is whole and fits.
    #[must_use]
    pub fn to_i64(self) -> Option<i64> {
        (self.0 % Self::UNIT == 0).then(|| i64::try_from(self.0 / Self::UNIT).ok()).flatten()
    }

    /// The sum; saturates.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference; saturates.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The value divided by a count, rounded toward zero; `None` for a count of zero.
    #[must_use]
    pub const fn divided_by(self, count: u64) -> Option<Self> {
        match self.0.checked_div(count as i128) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// The value multiplied by a whole number; saturates.
    #[must_use]
    pub const fn times(self, factor: i64) -> Self {
        Self(self.0.saturating_mul(factor as i128))
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / Self::UNIT, (self.0 % Self::UNIT).unsigned_abs());
        let sign = if self.0 < 0 && whole == 0 { "-" } else { "" };
        if fraction == 0 {
            write!(f, "{whole}")
        } else {
            let digits = format!("{fraction:09}");
            write!(f, "{sign}{whole}.{}", digits.trim_end_matches('0'))
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let refused = || QuantityError::NotDecimal(text.to_owned());
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let decimal = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !decimal(whole) || !decimal(fraction) || whole.len() > 29 || fraction.len() > 9 {
            return Err(refused());
        }
        let whole: i128 = whole.parse().map_err(|_| refused())?;
        let fraction: i128 = format!("{fraction:0<9}").parse().map_err(|_| refused())?;
        let nanos = whole * Self::UNIT + fraction;
        Ok(Self(if negative { -nanos } else { nanos }))
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn floats_round_to_the_nearest_billionth() {
        let nanos = |value| Quantity::from_f64(value).map(Quantity::as_nanos);
        assert_eq!(nanos(1.5), Ok(1_500_000_000));
        assert_eq!(nanos(-0.000_000_001_4), Ok(-1));
        assert_eq!(nanos(704_334.712), Ok(704_334_712_000_000));
        assert_eq!(nanos(9_007_199_254_740_993.0), Ok(9_007_199_254_740_992_000_000_000));
        assert!(nanos(f64::NAN).is_err());
        assert!(nanos(1e30).is_err());
    }

    #[test]
    fn text_and_value_agree() {
        for text in ["0", "1", "-1", "0.5", "-0.25", "123.000000001"] {
            assert_eq!(text.parse::<Quantity>().map(|q| q.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "-", "1.", ".5", "1e3", "1.0000000001", "+1", "0x1"] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
    }
}
