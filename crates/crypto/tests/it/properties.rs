use perihelion_crypto::{BatchVerifier, KeyType, PrivateKey, PublicKey};
use perihelion_proto::tendermint::crypto as pb;
use proptest::{collection::vec, prelude::*};
use prost::Message;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn batch_and_single_agree(
        cases in vec((any::<u8>(), vec(any::<u8>(), 0..40), 0..80_usize), 1..40),
    ) {
        let mut batch = BatchVerifier::with_capacity(cases.len());
        let mut expected = Vec::new();
        for (index, (secret, message, bend)) in cases.iter().enumerate() {
            let key = if secret % 5 == 0 {
                PrivateKey::secp256k1_from_secret(&[*secret])
            } else {
                PrivateKey::ed25519_from_secret(&[secret % 7])
            };
            let mut signature = key.sign(message).to_vec();
            if let Some(byte) = signature.get_mut(*bend) {
                *byte ^= 0x10;
            }
            if key.public_key().verify(message, &signature).is_err() {
                expected.push(index);
            }
            batch.push(&key.public_key(), message, &signature);
        }
        prop_assert_eq!(batch.verify().err().unwrap_or_default(), expected);
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200), signature in vec(any::<u8>(), 0..70)) {
        if let Ok(message) = pb::PublicKey::decode(&bytes[..])
            && let Ok(key) = PublicKey::try_from(message)
        {
            let _ = key.address();
            let _ = key.verify(&bytes, &signature);
        }
        for kind in [KeyType::Ed25519, KeyType::Secp256k1, KeyType::Secp256k1Eth, KeyType::MlDsa65] {
            let mut key = bytes.clone();
            key.resize(kind.public_key_length().unwrap(), 2);
            let key = PublicKey::from_bytes(kind, &key).unwrap();
            let _ = key.address();
            prop_assert!(key.verify(&bytes, &signature).is_err());
            prop_assert_eq!(&PublicKey::try_from(pb::PublicKey::from(&key)).unwrap(), &key);
        }
        let _ = serde_json::from_slice::<PublicKey>(&bytes);
        let _ = serde_json::from_slice::<PrivateKey>(&bytes);
    }
}
