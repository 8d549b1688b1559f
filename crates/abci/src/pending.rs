//! Calls that have begun: the application answers while the caller does something else.

use perihelion_types::Height;

use crate::{
    Answer, AppError, AppFault, Application, CallName, Finalized,
    connection::Line,
    types::{
        RequestCommit, RequestFinalizeBlock, ResponseCheckTx, ResponseCommit, ResponseFinalizeBlock,
    },
};

/// A call under way on a connection. It counts as running until this is dropped.
struct Pending<R> {
    line: Line,
    number: u64,
    call: CallName,
    height: Option<Height>,
    /// `None` while it begins, and once it was waited for.
    answer: Option<Answer<R>>,
}

impl<R> Pending<R> {
    fn begin(
        line: &Line,
        call: CallName,
        height: Option<Height>,
        begin: impl FnOnce(&dyn Application) -> Result<Answer<R>, AppFault>,
    ) -> Result<Self, AppError> {
        let mut pending = Self {
            line: line.clone(),
            number: line.calls().begin(call, height),
            call,
            height,
            answer: None,
        };
        pending.answer = Some(line.run(call, height, begin)?);
        Ok(pending)
    }

    fn wait(&mut self, check: impl FnOnce(&R) -> Result<(), AppFault>) -> Result<R, AppError> {
        let answer = self.answer.take();
        self.line.run(self.call, self.height, |_| {
            let answer = answer.ok_or_else(|| AppFault::failed("it was waited for already"))?;
            let response = answer.wait()?;
            check(&response)?;
            Ok(response)
        })
    }
}

impl<R> Drop for Pending<R> {
    fn drop(&mut self) {
        self.line.calls().end(self.number);
    }
}

/// A transaction that is being checked.
pub struct PendingCheckTx(Pending<ResponseCheckTx>);

impl PendingCheckTx {
    pub(crate) fn begin(
        line: &Line,
        begin: impl FnOnce(&dyn Application) -> Result<Answer<ResponseCheckTx>, AppFault>,
    ) -> Result<Self, AppError> {
        Pending::begin(line, CallName::CheckTx, None, begin).map(Self)
    }

    /// Whether the answer is here, so that it need not be waited for.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        matches!(self.0.answer, Some(Answer::Now(_)))
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// When the application fails or panics.
    pub fn wait(mut self) -> Result<ResponseCheckTx, AppError> {
        self.0.wait(|_| Ok(()))
    }
}

/// A block that is being executed.
pub struct PendingFinalizeBlock {
    pending: Pending<Finalized>,
    /// Transactions in the block.
    txs: usize,
}

impl PendingFinalizeBlock {
    pub(crate) fn begin(line: &Line, request: &RequestFinalizeBlock) -> Result<Self, AppError> {
        let height = Some(Height::new(request.height));
        let pending = Pending::begin(line, CallName::FinalizeBlock, height, |app| {
            app.begin_finalize_block(request)
        })?;
        let txs = request.txs.len();
        Ok(Self { pending, txs })
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// When the application fails or panics, or does not give one result a transaction.
    pub fn wait(mut self) -> Result<Finalized, AppError> {
        let txs = self.txs;
        self.pending
            .wait(|finalized| one_result_a_transaction(txs, finalized.response()))
    }
}

/// A block that is being committed.
pub struct PendingCommit(Pending<ResponseCommit>);

impl PendingCommit {
    pub(crate) fn begin(line: &Line, height: Height) -> Result<Self, AppError> {
        Pending::begin(line, CallName::Commit, Some(height), |app| {
            app.begin_commit(&RequestCommit {})
        })
        .map(Self)
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// When the application fails or panics, or asks to retain from a negative height.
    pub fn wait(mut self) -> Result<ResponseCommit, AppError> {
        self.0.wait(|response| match response.retain_height {
            ..0 => {
                let fault = format!("retain height {}", response.retain_height);
                Err(AppFault::Contradiction(fault))
            }
            0.. => Ok(()),
        })
    }
}

pub(crate) fn one_result_a_transaction(
    txs: usize,
    response: &ResponseFinalizeBlock,
) -> Result<(), AppFault> {
    let results = response.tx_results.len();
    if results == txs {
        return Ok(());
    }
    Err(AppFault::Contradiction(format!(
        "{results} results for {txs} transactions"
    )))
}
