//! TLS 1.3 with the replicas' own Ed25519 keys as raw public keys (RFC 7250), pinned to the committee.
//!
//! No certificate, no authority, no resumption. Signatures are made and checked by [`crate::types`], whose
//! rule is strict. Invariant: a handshake succeeds only with a key that the committee lists.

use std::sync::Arc;
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self, CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, PeerIncompatible,
        ServerConfig, SignatureAlgorithm, SignatureScheme,
        client::{
            AlwaysResolvesClientRawPublicKeys, Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, ring},
        pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
        server::{
            AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
        sign::{CertifiedKey, Signer, SigningKey},
        version::TLS13,
    },
};

use crate::types::{PublicKey, SecretKey, Signature};

/// The DER of an Ed25519 SubjectPublicKeyInfo (RFC 8410) up to the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Accepts connections of these keys.
pub(super) fn acceptor(secret: &SecretKey, peers: Vec<PublicKey>) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(Pinned(peers)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified(secret))));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connects to this key.
pub(super) fn connector(secret: &SecretKey, peer: PublicKey) -> Result<TlsConnector, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned(vec![peer])))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified(secret))));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The name that rustls wants and nobody looks at: keys say who a peer is.
pub(super) fn server_name() -> ServerName<'static> {
    ServerName::try_from("replica").expect("it is a valid name")
}

/// The key that a finished handshake has proven.
pub(super) fn peer_key(certificates: Option<&[CertificateDer<'_>]>) -> Option<PublicKey> {
    key_of(certificates?.first()?).ok()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certified(secret: &SecretKey) -> Arc<CertifiedKey> {
    let key = Key(secret.clone());
    let shown = CertificateDer::from(spki(&secret.public()));
    Arc::new(CertifiedKey::new(vec![shown], Arc::new(key)))
}

fn spki(key: &PublicKey) -> Vec<u8> {
    [SPKI_PREFIX.as_slice(), &key.to_bytes()].concat()
}

fn key_of(shown: &CertificateDer<'_>) -> Result<PublicKey, rustls::Error> {
    shown
        .strip_prefix(&SPKI_PREFIX)
        .and_then(|key| PublicKey::from_bytes(key.try_into().ok()?).ok())
        .ok_or_else(|| CertificateError::BadEncoding.into())
}

/// A replica's key as rustls asks for it.
#[derive(Clone, Debug)]
struct Key(SecretKey);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&SignatureScheme::ED25519).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(spki(&self.0.public()).into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ED25519
    }
}

impl Signer for Key {
    /// TLS 1.3 signs 64 spaces and a text of its own before the transcript's hash, so these bytes are never
    /// those of a statement or a document.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(self.0.sign(message).as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// The keys that are accepted.
#[derive(Debug)]
struct Pinned(Vec<PublicKey>);

impl Pinned {
    fn check_key(&self, shown: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key = key_of(shown)?;
        if self.0.contains(&key) {
            Ok(())
        } else {
            Err(rustls::Error::General(format!("the key {} is not the one expected here", key.id())))
        }
    }

    fn check_signature(
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let signature = signed.signature().try_into().map(Signature::from_bytes);
        match (signed.scheme, signature) {
            (SignatureScheme::ED25519, Ok(signature)) => key_of(shown)?
                .verify(message, &signature)
                .map(|()| HandshakeSignatureValid::assertion())
                .map_err(|_| CertificateError::BadSignature.into()),
            (_, Ok(_) | Err(_)) => Err(CertificateError::BadSignature.into()),
        }
    }
}

fn no_tls12() -> rustls::Error {
    PeerIncompatible::Tls12NotOfferedOrEnabled.into()
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check_key(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check_key(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Self::check_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
