//! Ed25519 keys and signatures under one rule: keys are admitted only when canonical and not of small
//! order, and every signature is checked by `verify_strict` alone, never in batches. Batch and single
//! verification disagree on crafted signatures, and then one agent would accept what another refuses.

use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::Signer as _;
use std::fmt;

use super::digest::Digest;

/// `keyid` of a public key: SHA-256 of its 32 raw bytes, written in lower-case hexadecimal.
pub type KeyId = Digest;

/// A public key that may take part: canonical, on the curve, not of small order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

/// Why bytes are no admissible public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes do not encode a point of the curve.
    #[error("the public key is not a point of the curve")]
    NotAPoint,
    /// The bytes are a second encoding of a point.
    #[error("the public key is not in its canonical encoding")]
    NotCanonical,
    /// The point has a small order: signatures under it bind nothing.
    #[error("the public key has a small order")]
    Weak,
    /// A key has 32 bytes.
    #[error("a key has 32 bytes")]
    WrongLength,
}

impl PublicKey {
    /// Admits a key from its 32 raw bytes.
    ///
    /// # Errors
    /// [`KeyError`] says which rule the bytes break.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAPoint)?;
        // Decoding accepts a y coordinate above the field's prime; encoding the point again does not.
        if key.to_edwards().compress().as_bytes() != bytes {
            return Err(KeyError::NotCanonical);
        }
        if key.is_weak() {
            return Err(KeyError::Weak);
        }
        Ok(Self(key))
    }

    /// The 32 raw bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The key's identifier in documents.
    #[must_use]
    pub fn id(&self) -> KeyId {
        Digest::of(self.0.as_bytes())
    }

    /// Checks a signature over exactly these bytes, by `verify_strict`.
    ///
    /// # Errors
    /// [`SignatureError`] when the signature is not this key's over these bytes, or is malleable.
    pub fn verify(&self, bytes: &[u8], signature: &Signature) -> Result<(), SignatureError> {
        self.0
            .verify_strict(bytes, &ed25519_dalek::Signature::from_bytes(&signature.0))
            .map_err(|_| SignatureError)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({:?})", self.id())
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PublicKey {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}

impl BorshSerialize for PublicKey {
    fn serialize<W: borsh::io::Write>(&self, writer: &mut W) -> borsh::io::Result<()> {
        writer.write_all(self.0.as_bytes())
    }
}

impl BorshDeserialize for PublicKey {
    fn deserialize_reader<R: borsh::io::Read>(reader: &mut R) -> borsh::io::Result<Self> {
        Self::from_bytes(&<[u8; 32]>::deserialize_reader(reader)?)
            .map_err(|error| borsh::io::Error::new(borsh::io::ErrorKind::InvalidData, error))
    }
}

/// A secret key. Its bytes are wiped when it is dropped, and it does not print itself.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    /// The key that these 32 bytes of secret randomness are the seed of.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// The 32 bytes of the seed, to be written to a file that only its owner reads.
    #[must_use]
    pub fn to_seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// Signs exactly these bytes. Callers pass domain-separated bytes: [`super::statement_bytes`] or
    /// [`super::pae`].
    #[must_use]
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature(self.0.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

/// 64 bytes that claim to be an Ed25519 signature; only [`PublicKey::verify`] says whether they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Wraps 64 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The 64 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "Signature({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// A signature that does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

#[cfg(test)]
mod tests {
    use super::{KeyError, PublicKey, SecretKey, Signature};

    #[test]
    fn a_signature_holds_for_its_bytes_and_no_others() {
        let key = SecretKey::from_seed(&[7; 32]);
        let signature = key.sign(b"statement");
        assert!(key.public().verify(b"statement", &signature).is_ok());
        assert!(key.public().verify(b"statement.", &signature).is_err());
        for bit in 0..512 {
            let mut bytes = *signature.as_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let changed = Signature::from_bytes(bytes);
            assert!(key.public().verify(b"statement", &changed).is_err());
        }
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::Weak));
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::Weak));
    }

    #[test]
    fn a_key_in_a_second_encoding_is_refused() {
        // y = 2^255 - 19 + 1, a second encoding of the point with y = 1.
        let mut bytes = [0xff; 32];
        bytes[0] = 0xee;
        bytes[31] = 0x7f;
        assert_eq!(PublicKey::from_bytes(&bytes), Err(KeyError::NotCanonical));
    }
}
