use perihelion_crypto::{BatchVerifier, KeyType, PrivateKey, PublicKey};
use perihelion_proto::tendermint::crypto as pb;
use perihelion_test_support::{Hex, Verdict, each, load};
use prost::Message;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct Keys {
    about: String,
    made_by: String,
    zip215_companion: String,
    ed25519: Vec<KeyCase>,
    secp256k1: Vec<KeyCase>,
    from_secret: Vec<FromSecret>,
    signature_verdicts: Vec<SignatureCase>,
    decode_public_key: Vec<DecodeCase>,
    zip215: Vec<Zip215>,
}

/// The cases of v0.40 that differ.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "some fields are for people")]
struct NewKeys {
    about: String,
    made_by: String,
    zip215_companion: String,
    mldsa65: Vec<KeyCase>,
    mldsa65_seeds: Vec<Hex>,
    secp256k1eth: Vec<KeyCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyCase {
    address: Hex,
    node_id: Option<Hex>,
    seed: Option<Hex>,
    private: Hex,
    private_json: String,
    public: Hex,
    public_json: String,
    public_proto: Hex,
    signatures: Vec<Signed>,
    text: String,
    #[serde(rename = "type")]
    key_type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    message: Hex,
    signature: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FromSecret {
    secret: Hex,
    ed25519: Hex,
    secp256k1: Hex,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignatureCase {
    name: String,
    #[serde(rename = "type")]
    key_type: String,
    public: Hex,
    message: Hex,
    signature: Hex,
    verify: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecodeCase {
    name: String,
    proto: Hex,
    decode: Verdict,
    public: Option<Hex>,
    #[serde(rename = "type")]
    key_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Zip215 {
    name: String,
    public: Hex,
    message: Hex,
    signature: Hex,
    verify: bool,
    batch_add_error: Option<String>,
    batch_alone: Option<bool>,
    batch_with_good: Option<Batch>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    ok: bool,
    each: Vec<bool>,
}

fn key_type(name: &str) -> KeyType {
    [
        KeyType::Ed25519,
        KeyType::Secp256k1,
        KeyType::MlDsa65,
        KeyType::Secp256k1Eth,
    ]
    .into_iter()
    .find(|kind| kind.name() == name)
    .unwrap_or_else(|| panic!("key type {name:?}"))
}

fn decode(proto: &[u8]) -> Result<PublicKey, String> {
    let message = pb::PublicKey::decode(proto).map_err(|error| error.to_string())?;
    PublicKey::try_from(message).map_err(|error| error.to_string())
}

/// What every kind has: bytes, address, protobuf, JSON and text of the public half.
fn check_public(case: &KeyCase) -> PublicKey {
    let key = PublicKey::from_bytes(key_type(&case.key_type), &case.public).unwrap();
    assert_eq!(key.address().as_bytes()[..], case.address[..]);
    assert_eq!(
        pb::PublicKey::from(&key).encode_to_vec(),
        *case.public_proto
    );
    assert_eq!(decode(&case.public_proto).unwrap(), key);
    assert_eq!(serde_json::to_string(&key).unwrap(), case.public_json);
    assert_eq!(
        serde_json::from_str::<PublicKey>(&case.public_json).unwrap(),
        key
    );
    assert_eq!(key.to_string(), case.text);
    if let Some(id) = &case.node_id {
        assert_eq!(key.node_id().to_string(), hex::encode(&id.0));
    }
    assert!(serde_json::from_str::<PrivateKey>(&case.public_json).is_err());
    assert!(serde_json::from_str::<PublicKey>(&case.private_json).is_err());
    key
}

/// A kind that signs.
fn check_private(case: &KeyCase) {
    let public = check_public(case);
    let private: PrivateKey = serde_json::from_str(&case.private_json).unwrap();
    assert_eq!(private.to_bytes()[..], case.private[..]);
    assert_eq!(private.public_key(), public);
    assert_eq!(serde_json::to_string(&private).unwrap(), case.private_json);
    assert!(!format!("{private:?}").contains(&hex::encode(&case.private[..4])));
    if let Some(seed) = &case.seed {
        let seed: &[u8; 32] = seed[..].try_into().unwrap();
        assert_eq!(
            PrivateKey::ed25519_from_seed(seed).to_bytes(),
            private.to_bytes()
        );
    }
    each("signatures", &case.signatures, |_, signed| {
        assert_eq!(private.sign(&signed.message)[..], signed.signature[..]);
        assert_eq!(public.verify(&signed.message, &signed.signature), Ok(()));
    });
}

#[test]
fn vector_keys() {
    let file: Keys = load("keys.json");
    each("ed25519", &file.ed25519, |_, case| {
        assert!(case.node_id.is_some() && case.seed.is_some());
        check_private(case);
    });
    each("secp256k1", &file.secp256k1, |_, case| check_private(case));
    each("from_secret", &file.from_secret, |_, case| {
        let ed25519 = PrivateKey::ed25519_from_secret(&case.secret);
        assert_eq!(ed25519.to_bytes()[..], case.ed25519[..]);
        let secp256k1 = PrivateKey::secp256k1_from_secret(&case.secret);
        assert_eq!(secp256k1.to_bytes()[..], case.secp256k1[..]);
    });
}

#[test]
fn vector_keys_of_v0_40() {
    let file: NewKeys = load("keys_v0.40.json");
    assert_eq!(file.mldsa65.len(), file.mldsa65_seeds.len());
    each("mldsa65", &file.mldsa65, |_, case| {
        let key = check_public(case);
        // Carried, but neither verified nor signed with.
        each("signatures", &case.signatures, |_, signed| {
            assert!(key.verify(&signed.message, &signed.signature).is_err());
        });
        assert!(serde_json::from_str::<PrivateKey>(&case.private_json).is_err());
    });
    each("secp256k1eth", &file.secp256k1eth, |_, case| {
        let key = check_public(case);
        each("signatures", &case.signatures, |_, signed| {
            assert_eq!(key.verify(&signed.message, &signed.signature), Ok(()));
            let mut bent = signed.signature.0.clone();
            bent[64] = 2;
            assert!(key.verify(&signed.message, &bent).is_err());
            bent[64] = signed.signature[64];
            bent[0] ^= 1;
            assert!(key.verify(&signed.message, &bent).is_err());
            assert!(key.verify(b"other", &signed.signature).is_err());
        });
        assert!(serde_json::from_str::<PrivateKey>(&case.private_json).is_err());
        assert_eq!(case.private.len(), 32);
    });
}

#[test]
fn vector_signature_verdicts() {
    let file: Keys = load("keys.json");
    each("signature_verdicts", &file.signature_verdicts, |_, case| {
        let verdict = PublicKey::from_bytes(key_type(&case.key_type), &case.public)
            .is_ok_and(|key| key.verify(&case.message, &case.signature).is_ok());
        assert_eq!(verdict, case.verify, "{} {}", case.key_type, case.name);
    });
    each("decode_public_key", &file.decode_public_key, |_, case| {
        let key = decode(&case.proto);
        case.decode.assert_agrees(&case.name, &key);
        if let Ok(key) = key {
            assert_eq!(key.as_bytes(), &case.public.as_ref().unwrap()[..]);
            assert_eq!(key.key_type().name(), case.key_type.as_ref().unwrap());
        }
    });
}

#[test]
fn vector_zip215() {
    let file: Keys = load("keys.json");
    let companion = PrivateKey::ed25519_from_secret(b"companion");
    each("zip215", &file.zip215, |_, case| {
        let Ok(key) = PublicKey::from_bytes(KeyType::Ed25519, &case.public) else {
            assert!(
                !case.verify && case.batch_add_error.is_some(),
                "{}",
                case.name
            );
            return;
        };
        let single = key.verify(&case.message, &case.signature).is_ok();
        assert_eq!(single, case.verify, "{}, single", case.name);

        let mut alone = BatchVerifier::new();
        alone.push(&key, &case.message[..], &case.signature);
        let expected = case.batch_alone.unwrap_or(false);
        assert_eq!(alone.verify().is_ok(), expected, "{}, batch", case.name);

        let mut pair = BatchVerifier::new();
        pair.push(&key, &case.message[..], &case.signature);
        pair.push(&companion.public_key(), b"good", &companion.sign(b"good"));
        let bad = pair.verify().err().unwrap_or_default();
        match &case.batch_with_good {
            Some(batch) => {
                assert_eq!(bad.is_empty(), batch.ok, "{}, pair", case.name);
                for (index, holds) in batch.each.iter().enumerate() {
                    assert_eq!(!bad.contains(&index), *holds, "{} {index}", case.name);
                }
            }
            None => {
                assert!(case.batch_add_error.is_some(), "{}", case.name);
                assert_eq!(bad, [0], "{}", case.name);
            }
        }
    });
}
