use crate::PublicKey;

/// Verifies many signatures at once, over one commit or many: signatures of one key share that
/// key's share of the work, so a batch over 100 commits of the same validators costs about a fifth
/// of single verification. The verdicts are exactly those of [`PublicKey::verify`] (ZIP-215).
#[derive(Default)]
pub struct BatchVerifier {
    _todo: (),
}

impl BatchVerifier {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one signature. Anything that cannot be batched (other key types, lengths) is accepted
    /// here and judged by [`verify`](Self::verify).
    pub fn push(&mut self, _key: &PublicKey, _message: Vec<u8>, _signature: &[u8]) {
        todo!()
    }

    /// How many signatures were added.
    #[must_use]
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether none was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Verifies all.
    ///
    /// # Errors
    /// The indexes, in the order of adding, of the signatures that do not hold.
    pub fn verify(self) -> Result<(), Vec<usize>> {
        todo!()
    }
}
