//! RSA keys of any length with real signatures, shorter and longer than any library would make them. The moduli are
//! products of many small primes: their factors are no secret, and nothing needs more than small arithmetic.

use crate::forge::{decode, encode, sha256};
use serde_json::{Value, json};

/// A key of so many 64-bit primes.
pub struct WeakRsa {
    primes: Vec<u64>,
    modulus: Big,
}

/// An unsigned integer, least significant word first.
#[derive(Clone)]
struct Big(Vec<u64>);

impl WeakRsa {
    /// A key of this many bits, a multiple of 64.
    pub fn of_bits(bits: usize) -> Self {
        // Counted down from 2^64: their product keeps its top bit.
        let primes: Vec<u64> = (0..=u64::MAX)
            .rev()
            .step_by(2)
            .filter(|n| is_prime(*n) && (n - 1) % EXPONENT != 0)
            .take(bits / 64)
            .collect();
        let mut modulus = Big(vec![1]);
        for prime in &primes {
            modulus.multiply(*prime);
        }
        Self { primes, modulus }
    }

    /// The public JWK.
    pub fn jwk(&self, kid: &str) -> Value {
        json!({
            "kty": "RSA", "n": encode(self.modulus.to_bytes(self.primes.len())), "e": "AQAB", "alg": "RS256",
            "kid": kid, "use": "sig",
        })
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017 §8.2.1): one root for each prime, put together by the Chinese
    /// remainder theorem.
    pub fn sign(&self, input: &[u8]) -> Vec<u8> {
        let message = Big::from_bytes(&padded(input, self.primes.len() * 8));
        let (mut root, mut product) = (Big(vec![0]), Big(vec![1]));
        for &prime in &self.primes {
            // Garner's step: root + product · t ≡ message^d (mod prime).
            let d = inverse(EXPONENT % (prime - 1), prime - 1);
            let wanted = power(message.remainder(prime), d, prime);
            let difference = subtract(wanted, root.remainder(prime), prime);
            // Fermat: the inverse of x is x^(p − 2).
            let t = times(difference, power(product.remainder(prime), prime - 2, prime), prime);
            root.add_product(&product, t);
            product.multiply(prime);
        }
        root.to_bytes(self.primes.len())
    }
}

/// EMSA-PKCS1-v1_5 (RFC 8017 §9.2) with SHA-256, of so many bytes.
pub fn padded(input: &[u8], bytes: usize) -> Vec<u8> {
    let digest_info = [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];
    let tail = [&[0][..], &digest_info, &decode(&sha256(input))].concat();
    [&[0, 1][..], &vec![0xff; bytes - 2 - tail.len()], &tail].concat()
}

impl Big {
    fn from_bytes(bytes: &[u8]) -> Self {
        let words = bytes.rchunks(8).map(|word| word.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
        Self(words.collect())
    }

    fn to_bytes(&self, words: usize) -> Vec<u8> {
        (0..words).rev().flat_map(|at| self.0.get(at).copied().unwrap_or(0).to_be_bytes()).collect()
    }

    fn remainder(&self, modulus: u64) -> u64 {
        let step = |all: u128, word: &u64| (all << 64 | u128::from(*word)) % u128::from(modulus);
        self.0.iter().rev().fold(0, step) as u64
    }

    fn multiply(&mut self, by: u64) {
        let mut product = Self(vec![0]);
        product.add_product(self, by);
        *self = product;
    }

    /// self += other · by
    fn add_product(&mut self, other: &Self, by: u64) {
        let (mut carry, mut at) = (0_u128, 0);
        while at < other.0.len() || carry > 0 {
            if at == self.0.len() {
                self.0.push(0);
            }
            let word = other.0.get(at).copied().unwrap_or(0);
            carry += u128::from(word) * u128::from(by) + u128::from(self.0[at]);
            self.0[at] = carry as u64;
            carry >>= 64;
            at += 1;
        }
    }
}

fn times(a: u64, b: u64, modulus: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(modulus)) as u64
}

fn subtract(a: u64, b: u64, modulus: u64) -> u64 {
    ((u128::from(a) + u128::from(modulus) - u128::from(b)) % u128::from(modulus)) as u64
}

fn power(mut base: u64, mut exponent: u64, modulus: u64) -> u64 {
    let mut result = 1;
    base %= modulus;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = times(result, base, modulus);
        }
        base = times(base, base, modulus);
        exponent >>= 1;
    }
    result
}

/// The inverse of `a`, which is coprime to the modulus, by the extended Euclidean algorithm.
fn inverse(a: u64, modulus: u64) -> u64 {
    let (mut old, mut new) = ((i128::from(a), 1_i128), (i128::from(modulus), 0_i128));
    while new.0 != 0 {
        let quotient = old.0 / new.0;
        (old, new) = (new, (old.0 - quotient * new.0, old.1 - quotient * new.1));
    }
    old.1.rem_euclid(i128::from(modulus)) as u64
}

/// Miller–Rabin; with these bases there is no exception below 2^64.
fn is_prime(n: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if BASES.iter().any(|base| n.is_multiple_of(*base)) {
        return BASES.contains(&n);
    }
    let twos = (n - 1).trailing_zeros();
    BASES.iter().all(|base| {
        let mut x = power(*base, (n - 1) >> twos, n);
        x == 1
            || (0..twos).any(|_| {
                let passes = x == n - 1;
                x = times(x, x, n);
                passes
            })
    })
}

const EXPONENT: u64 = 65_537;

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};

    #[test]
    fn signatures_are_real() {
        for bits in [2048, 4096] {
            let key = WeakRsa::of_bits(bits);
            let public = RsaPublicKeyComponents { n: key.modulus.to_bytes(bits / 64), e: vec![1, 0, 1] };
            let signature = key.sign(b"input");
            assert_eq!((public.n.len(), signature.len()), (bits / 8, bits / 8));
            assert!(public.n[0] >= 0x80, "all the bits");
            public.verify(&RSA_PKCS1_2048_8192_SHA256, b"input", &signature).unwrap();
            public.verify(&RSA_PKCS1_2048_8192_SHA256, b"output", &signature).unwrap_err();
        }
    }
}
