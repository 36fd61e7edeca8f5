//! Signatures of tokens, checked by ring, which TLS has brought along anyway: the library that reads the tokens would
//! bring either another C library, or an RSA whose private key operations leak (RUSTSEC-2023-0071).

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{ErrorKind, Result},
    signature::{self, Verifier},
};
use ring::signature as ring;

/// Makes the library use this. Where a process has chosen something else already, that is used.
pub(super) fn install() {
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| -> Result<Box<dyn JwtSigner>> { Err(ErrorKind::UnsupportedAlgorithm.into()) },
        verifier_factory: |algorithm, key| Ok(Box::new(RingVerifier::new(*algorithm, key)?)),
        key_utils: KeyUtils::new_unimplemented(),
    };
    let _ = RING.install_default();
}

struct RingVerifier {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Point(&'static dyn ring::VerificationAlgorithm, Vec<u8>),
    Rsa(&'static ring::RsaParameters, ring::RsaPublicKeyComponents<Vec<u8>>),
}

impl RingVerifier {
    fn new(algorithm: Algorithm, key: &DecodingKey) -> Result<Self> {
        if key.family() != algorithm.family() {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
        let point = |by| Ok(Key::Point(by, key.try_get_as_bytes()?.to_vec()));
        let rsa = |by| match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                Ok(Key::Rsa(by, ring::RsaPublicKeyComponents { n: n.clone(), e: e.clone() }))
            }
            DecodingKeyKind::SecretOrDer(_) => Err(ErrorKind::InvalidKeyFormat.into()),
        };
        let key: Result<Key> = match algorithm {
            Algorithm::ES256 => point(&ring::ECDSA_P256_SHA256_FIXED),
            Algorithm::ES384 => point(&ring::ECDSA_P384_SHA384_FIXED),
            Algorithm::EdDSA => point(&ring::ED25519),
            Algorithm::RS256 => rsa(&ring::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::RS384 => rsa(&ring::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::RS512 => rsa(&ring::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::PS256 => rsa(&ring::RSA_PSS_2048_8192_SHA256),
            Algorithm::PS384 => rsa(&ring::RSA_PSS_2048_8192_SHA384),
            Algorithm::PS512 => rsa(&ring::RSA_PSS_2048_8192_SHA512),
            _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
        };
        Ok(Self { algorithm, key: key? })
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), signature::Error> {
        let verified = match &self.key {
            Key::Point(by, key) => ring::UnparsedPublicKey::new(*by, key).verify(message, signature),
            Key::Rsa(by, key) => key.verify(by, message, signature),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Validation, decode};
    use serde_json::Value;

    use super::*;

    /// Made once by another library (pyca/cryptography 48), whose key has been thrown away: ring makes no keys for RSA.
    const MODULUS: &str = "jBRFUJbLvvecmlo2HFZ3FrwpJSVnGggQ6u0GhFoRYof13Da8uIxPnvDzH2FLgnl1iPPAxKExu_ruEejt4j35tLHqKLtvYcLbvEX27HLYjj5hxvbLfE8wOTxqNHTYTpxTI8Oac0AGSlGupHQfc2zJ-9tQIREkh_sQpHORscsJWlwAK9uLg4-BjlJZHlgyB7DjpFiCH-A40fQMhZHENjHI49SuFR-1JkNGp3XqQygq1XmeIwdM77NwjzNV2ftihvVBW-oWwAum2kCVXFFVw92DyfECl-sh2jgjpphEyImUGaspPsjDwqqZGsEsTu_UbzjH93o7kq-Ku17y_Y99YnmO4w";
    const TOKENS: [(Algorithm, &str); 2] = [
        (
            Algorithm::RS256,
            "eyJhbGciOiJSUzI1NiIsImtpZCI6InIifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJ3Iiwic3ViIjoicyIsImV4cCI6OTk5OTk5OTk5OX0.T3fgNq-xvKsxB7klfCN_4DjAvsNHjPVv9hGtcsuMCRk64UftEEnk9JcEkBirEru3otJLgz2XtW9j6AkW03Qk6jfICbvD8RJCV-_aEM5LmyfbALdNOft6sSH0TeYszEQDJ5BgEL78L9w-y96nynn5cSQj9gNRgnEyNZTA3Kljr9VqT3isqlsNtABm9ZIQuiaHcAUnmhUPlYQ34Sc6uZzvaFuwb-GL8cJhhfKFZ_uHZmZ6tFJRwmNIUpDzqUaRIjCFA-xWeddyUIu7Ya5zGpp1jFhxvJ2qz4QXS_WdyJX-ScM3rYvFe1njAct2_T-obIN5Tr6aCvkR-SKIJqw-8NNV8w",
        ),
        (
            Algorithm::PS256,
            "eyJhbGciOiJQUzI1NiIsImtpZCI6InIifQ.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJ3Iiwic3ViIjoicyIsImV4cCI6OTk5OTk5OTk5OX0.I7IREzqZDrFBRINMDYocsUnN1tgXmDWwpJLkQCUal6vM6qOQ_RgvZvQo3gQgahNr2oqdrk-wFREoHC1a_1XE-vtHzKxdjmN8zx6R2o25KRyc0W8G7bSXY943bv0PCehg3DWPrdSXmDhkgIgaN92gQoz10idYmS_ZI1Y-Y2nYQ-CLv3EUaqanmq3Z8yCRBEaiOO1Fo3OUBlOsh8CxcFE1OvsPWsw5cApny68pgNbYpqDMT4BqBCxjiaP_4J7W6eIzWz_fQX2ews2ADZG6ozeq14Va0BZOis0qoudsAEW3nxwC5OL9hES6uSl1KBDZnHhIkCru-CV4phi2JT_kpHKhUA",
        ),
    ];

    #[test]
    fn signatures_of_rsa_are_checked() {
        install();
        let key = DecodingKey::from_rsa_components(MODULUS, "AQAB").unwrap();
        let other = DecodingKey::from_rsa_components(&MODULUS.replacen('A', "B", 1), "AQAB").unwrap();
        for (algorithm, token) in TOKENS {
            let mut validation = Validation::new(algorithm);
            validation.set_audience(&["w"]);
            assert!(decode::<Value>(token, &key, &validation).is_ok(), "{algorithm:?}");
            assert!(decode::<Value>(token, &other, &validation).is_err(), "{algorithm:?}");
            let (message, signature) = token.rsplit_once('.').unwrap();
            let altered = if signature.starts_with('A') { "B" } else { "A" };
            let altered = format!("{message}.{altered}{}", &signature[1..]);
            assert!(decode::<Value>(altered, &key, &validation).is_err(), "{algorithm:?}");
            let secret = DecodingKey::from_secret(MODULUS.as_bytes());
            assert!(decode::<Value>(token, &secret, &validation).is_err(), "{algorithm:?}");
        }
    }
}
