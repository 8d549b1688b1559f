//! Applications in another process, over CometBFT's socket protocol or gRPC.

mod address;
pub(crate) mod codec;
pub(crate) mod frame;
mod grpc;
mod link;
mod socket;
mod stream;
pub(crate) mod text;

use std::{io, sync::Arc};

use prost::Message;
use thiserror::Error;

pub use self::{
    address::{AddressError, AppAddress, AppTransport},
    link::LostConnection,
};
use self::{
    grpc::GrpcClient,
    socket::{Reply, SocketClient},
    text::decode_answer,
};
pub(crate) use self::{link::Link, stream::Stream};
use crate::{
    AppFault, Application, CallName, Finalized,
    application::Answer,
    calls::Calls,
    threads::Threads,
    types::{
        RequestApplySnapshotChunk, RequestCheckTx, RequestCommit, RequestEcho, RequestExtendVote,
        RequestFinalizeBlock, RequestFlush, RequestInfo, RequestInitChain, RequestListSnapshots,
        RequestLoadSnapshotChunk, RequestOfferSnapshot, RequestPrepareProposal,
        RequestProcessProposal, RequestQuery, RequestVerifyVoteExtension,
        ResponseApplySnapshotChunk, ResponseCheckTx, ResponseCommit, ResponseEcho,
        ResponseExtendVote, ResponseFinalizeBlock, ResponseFlush, ResponseInfo, ResponseInitChain,
        ResponseListSnapshots, ResponseLoadSnapshotChunk, ResponseOfferSnapshot,
        ResponsePrepareProposal, ResponseProcessProposal, ResponseQuery,
        ResponseVerifyVoteExtension, response::Value,
    },
};

/// The application cannot be reached now.
#[derive(Debug, Error)]
#[error("the application at {address} ({transport}) cannot be reached: {source}")]
pub struct ConnectError {
    /// Where it was sought.
    pub address: AppAddress,
    /// How it was to be spoken to.
    pub transport: AppTransport,
    /// Why.
    pub source: io::Error,
}

/// Dials the connections to one application, each of which is a [`Remote`].
pub(crate) struct Dialer<'a> {
    address: &'a AppAddress,
    link: Arc<Link>,
    /// Where gRPC is spoken.
    threads: Option<Arc<Threads>>,
}

impl<'a> Dialer<'a> {
    pub(crate) fn new(
        address: &'a AppAddress,
        transport: AppTransport,
        link: Arc<Link>,
    ) -> io::Result<Self> {
        let threads = match transport {
            AppTransport::Socket => None,
            AppTransport::Grpc => Some(Arc::new(Threads::start("abci-grpc")?)),
        };
        Ok(Self {
            address,
            link,
            threads,
        })
    }

    pub(crate) fn dial(&self, calls: &Arc<Calls>) -> io::Result<Remote> {
        let stream = self.address.dial()?;
        self.link.carries(calls);
        let (calls, link) = (Arc::clone(calls), Arc::clone(&self.link));
        Ok(match &self.threads {
            None => Remote::Socket(SocketClient::start(stream, calls, link)?),
            Some(threads) => {
                let authority = match self.address {
                    AppAddress::Tcp { host, .. } if host.is_empty() => "localhost".to_owned(),
                    AppAddress::Tcp { .. } => self.address.to_string().split_off("tcp://".len()),
                    AppAddress::Unix(_) => "localhost".to_owned(),
                };
                Remote::Grpc(GrpcClient::start(stream, &authority, threads, calls, link)?)
            }
        })
    }
}

/// An application behind one connection. It keeps its own state.
pub(crate) enum Remote {
    Socket(SocketClient),
    Grpc(GrpcClient),
}

impl Remote {
    /// Calls; `pick` takes the response out of the message that the socket protocol has it in.
    fn call<R: Message + Default + 'static>(
        &self,
        call: CallName,
        request: &impl Message,
        pick: impl FnOnce(Value) -> Option<R>,
    ) -> Result<R, AppFault> {
        match self {
            Self::Grpc(client) => client.call(call, request),
            Self::Socket(client) => client
                .call(call, request)
                .and_then(|reply| picked(reply.value().and_then(pick))),
        }
    }
}

/// The connection has matched response and call.
fn picked<R>(response: Option<R>) -> Result<R, AppFault> {
    response.ok_or_else(|| AppFault::Contradiction("the response to another call".to_owned()))
}

fn check_tx_of(value: Value) -> Option<ResponseCheckTx> {
    match value {
        Value::CheckTx(response) => Some(response),
        _ => None,
    }
}

impl Application for Remote {
    fn echo(&self, message: &str) -> Result<String, AppFault> {
        let request = RequestEcho {
            message: message.to_owned(),
        };
        let response: ResponseEcho = self.call(CallName::Echo, &request, |value| match value {
            Value::Echo(response) => Some(response),
            _ => None,
        })?;
        Ok(response.message)
    }

    fn flush(&self) -> Result<(), AppFault> {
        let _: ResponseFlush =
            self.call(CallName::Flush, &RequestFlush {}, |value| match value {
                Value::Flush(response) => Some(response),
                _ => None,
            })?;
        Ok(())
    }

    fn check_tx(&self, request: &RequestCheckTx) -> Result<ResponseCheckTx, AppFault> {
        self.call(CallName::CheckTx, request, check_tx_of)
    }

    /// Over gRPC each is waited for, as with CometBFT: there they could overtake one another.
    fn begin_check_tx(
        &self,
        request: &RequestCheckTx,
    ) -> Result<Answer<ResponseCheckTx>, AppFault> {
        match self {
            Self::Socket(client) => client.begin(CallName::CheckTx, request, |reply| {
                picked(reply.value().and_then(check_tx_of))
            }),
            Self::Grpc(_) => self.check_tx(request).map(Answer::Now),
        }
    }

    fn info(&self, request: &RequestInfo) -> Result<ResponseInfo, AppFault> {
        self.call(CallName::Info, request, |value| match value {
            Value::Info(response) => Some(response),
            _ => None,
        })
    }

    fn query(&self, request: &RequestQuery) -> Result<ResponseQuery, AppFault> {
        self.call(CallName::Query, request, |value| match value {
            Value::Query(response) => Some(response),
            _ => None,
        })
    }

    fn init_chain(&self, request: &RequestInitChain) -> Result<ResponseInitChain, AppFault> {
        self.call(CallName::InitChain, request, |value| match value {
            Value::InitChain(response) => Some(response),
            _ => None,
        })
    }

    fn prepare_proposal(
        &self,
        request: &RequestPrepareProposal,
    ) -> Result<ResponsePrepareProposal, AppFault> {
        self.call(CallName::PrepareProposal, request, |value| match value {
            Value::PrepareProposal(response) => Some(response),
            _ => None,
        })
    }

    fn process_proposal(
        &self,
        request: &RequestProcessProposal,
    ) -> Result<ResponseProcessProposal, AppFault> {
        self.call(CallName::ProcessProposal, request, |value| match value {
            Value::ProcessProposal(response) => Some(response),
            _ => None,
        })
    }

    fn extend_vote(&self, request: &RequestExtendVote) -> Result<ResponseExtendVote, AppFault> {
        self.call(CallName::ExtendVote, request, |value| match value {
            Value::ExtendVote(response) => Some(response),
            _ => None,
        })
    }

    fn verify_vote_extension(
        &self,
        request: &RequestVerifyVoteExtension,
    ) -> Result<ResponseVerifyVoteExtension, AppFault> {
        self.call(
            CallName::VerifyVoteExtension,
            request,
            |value| match value {
                Value::VerifyVoteExtension(response) => Some(response),
                _ => None,
            },
        )
    }

    fn finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<ResponseFinalizeBlock, AppFault> {
        self.begin_finalize_block(request)?.wait()?.into_response()
    }

    fn begin_finalize_block(
        &self,
        request: &RequestFinalizeBlock,
    ) -> Result<Answer<Finalized>, AppFault> {
        match self {
            Self::Socket(client) => {
                client.begin_flushed(CallName::FinalizeBlock, request, |reply| {
                    picked(match reply {
                        Reply::Finalized(finalized) => Some(finalized),
                        Reply::Value(_) => None,
                    })
                })
            }
            Self::Grpc(client) => client.begin(CallName::FinalizeBlock, request, |_, body| {
                Finalized::read(body)
            }),
        }
    }

    fn commit(&self, request: &RequestCommit) -> Result<ResponseCommit, AppFault> {
        self.begin_commit(request)?.wait()
    }

    fn begin_commit(&self, request: &RequestCommit) -> Result<Answer<ResponseCommit>, AppFault> {
        match self {
            Self::Socket(client) => client.begin_flushed(CallName::Commit, request, |reply| {
                picked(match reply {
                    Reply::Value(Value::Commit(response)) => Some(response),
                    _ => None,
                })
            }),
            Self::Grpc(client) => client.begin(CallName::Commit, request, |call, body| {
                decode_answer(call, &body)
            }),
        }
    }

    fn list_snapshots(
        &self,
        request: &RequestListSnapshots,
    ) -> Result<ResponseListSnapshots, AppFault> {
        self.call(CallName::ListSnapshots, request, |value| match value {
            Value::ListSnapshots(response) => Some(response),
            _ => None,
        })
    }

    fn offer_snapshot(
        &self,
        request: &RequestOfferSnapshot,
    ) -> Result<ResponseOfferSnapshot, AppFault> {
        self.call(CallName::OfferSnapshot, request, |value| match value {
            Value::OfferSnapshot(response) => Some(response),
            _ => None,
        })
    }

    fn load_snapshot_chunk(
        &self,
        request: &RequestLoadSnapshotChunk,
    ) -> Result<ResponseLoadSnapshotChunk, AppFault> {
        self.call(CallName::LoadSnapshotChunk, request, |value| match value {
            Value::LoadSnapshotChunk(response) => Some(response),
            _ => None,
        })
    }

    fn apply_snapshot_chunk(
        &self,
        request: &RequestApplySnapshotChunk,
    ) -> Result<ResponseApplySnapshotChunk, AppFault> {
        self.call(CallName::ApplySnapshotChunk, request, |value| match value {
            Value::ApplySnapshotChunk(response) => Some(response),
            _ => None,
        })
    }
}
