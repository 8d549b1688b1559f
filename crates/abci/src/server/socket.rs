//! One connection of the socket protocol, served by a thread of its own.

use std::io::{self, BufReader, BufWriter, Write};

use prost::Message as _;

use super::dispatch::{Reply, Served};
use crate::{
    remote::{
        Stream,
        frame::{FrameError, read_frame},
    },
    types::{Request, request::Value},
};

/// Bytes read and written at once.
const BUFFER: usize = 64 << 10;

/// Answers requests in their order until the node closes the connection (`Ok`) or one cannot be
/// answered. As with CometBFT, responses leave when the node asks for a flush.
pub(super) fn serve(stream: &Stream, app: &Served) -> Result<(), FrameError> {
    let mut requests = BufReader::with_capacity(BUFFER, stream.try_clone()?);
    let mut responses = BufWriter::with_capacity(BUFFER, stream.try_clone()?);
    let outcome = answer_all(&mut requests, &mut responses, app);
    if let Err(error) = &outcome {
        // The node shall learn why; it may be gone.
        let _told = write(Reply::exception(error), &mut responses).and_then(|()| responses.flush());
    }
    outcome
}

fn answer_all(
    requests: &mut impl io::Read,
    responses: &mut impl Write,
    app: &Served,
) -> Result<(), FrameError> {
    while let Some(frame) = read_frame(requests)? {
        let Some(request) = Request::decode(frame)?.value else {
            write(Reply::exception("unknown request"), responses)?;
            responses.flush()?;
            return Ok(());
        };
        let is_flush = matches!(request, Value::Flush(_));
        match app.answer(request) {
            Ok(answer) => write(answer, responses)?,
            Err(error) => {
                tracing::error!("{error}");
                write(Reply::exception(error.reason), responses)?;
                responses.flush()?;
                return Ok(());
            }
        }
        if is_flush {
            responses.flush()?;
        }
    }
    Ok(())
}

fn write(reply: Reply, stream: &mut impl Write) -> io::Result<()> {
    let mut frame = Vec::new();
    reply.put(&mut frame);
    stream.write_all(&frame)
}
