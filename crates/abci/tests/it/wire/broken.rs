//! Applications, and nodes, that break the protocol. None makes the other side panic or wait.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, mpsc::channel},
    thread,
};

use perihelion_abci::{
    AppAddress, AppConnections, AppFault, AppTransport, Noop,
    types::{
        Request, RequestCheckTx, RequestEcho, RequestFlush, RequestInfo, Response, ResponseCheckTx,
        ResponseEcho, ResponseException, ResponseFlush, request, response,
    },
};
use prost::Message as _;

use super::{PATIENCE, Service, TRANSPORTS, losses};

fn framed(value: response::Value) -> Vec<u8> {
    Response { value: Some(value) }.encode_length_delimited_to_vec()
}

fn asked(value: request::Value) -> Vec<u8> {
    Request { value: Some(value) }.encode_length_delimited_to_vec()
}

/// An application that answers the first bytes of each connection with `answer`, and then waits
/// for the other side to close.
fn answering(answer: Vec<u8>) -> AppAddress {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().take(4) {
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || {
                let mut bytes = [0; 1024];
                if stream.read(&mut bytes).unwrap_or(0) > 0 {
                    let _sent = stream.write_all(&answer);
                    let _sent = stream.shutdown(Shutdown::Write);
                    while stream.read(&mut bytes).is_ok_and(|read| read > 0) {}
                }
            });
        }
    });
    AppAddress::Tcp {
        host: "127.0.0.1".to_owned(),
        port,
    }
}

#[test]
fn a_broken_answer_ends_the_connection_with_its_reason() {
    let echo = ResponseEcho {
        message: "hello".to_owned(),
    };
    let flush = framed(response::Value::Flush(ResponseFlush {}));
    let exception = ResponseException {
        error: "no".to_owned(),
    };
    let whole = framed(response::Value::Echo(echo));
    for (what, answer, reason) in [
        ("nothing", vec![], "the application closed it"),
        (
            "half a message",
            whole[..3].to_vec(),
            "ended within a message",
        ),
        ("no message", vec![2, 8, 1], "cannot be decoded"),
        ("an empty message", vec![0], "a response of no known kind"),
        (
            "another response",
            whole.clone(),
            "the response to another call",
        ),
        ("flush first", flush, "the response to another call"),
        (
            "2 GiB",
            vec![0x80, 0x80, 0x80, 0x80, 8],
            "announced with 2147483648 bytes",
        ),
        ("no length", vec![0xff; 20], "no varint"),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), ""),
        (
            "an exception",
            framed(response::Value::Exception(exception)),
            "no",
        ),
    ] {
        let address = answering(answer);
        let app = AppConnections::connect(&address, AppTransport::Socket).unwrap();
        let lost = losses(&app);
        let error = app.query.info(&RequestInfo::default()).unwrap_err();
        assert!(error.to_string().contains(reason), "{what}: {error}");
        let loss = lost.recv_timeout(PATIENCE).unwrap();
        assert!(loss.reason.contains(reason), "{what}: {loss}");
        let error = app.consensus.commit(perihelion_types::Height::new(1));
        let fault = error.unwrap_err().reason;
        assert!(matches!(fault, AppFault::Closed(_)), "{what}: {fault}");
    }
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let echo = framed(response::Value::Echo(ResponseEcho {
        message: "hello".to_owned(),
    }));
    let flush = framed(response::Value::Flush(ResponseFlush {}));
    let address = answering([echo, flush.clone(), flush].concat());
    let app = AppConnections::connect(&address, AppTransport::Socket).unwrap();
    let lost = losses(&app);
    assert_eq!(app.query.echo("hello").unwrap(), "hello");
    let loss = lost.recv_timeout(PATIENCE).unwrap();
    assert!(loss.reason.contains("nobody asked for"), "{loss}");
}

#[test]
fn each_transport_meets_the_other_without_waiting() {
    for (served, spoken) in [
        (AppTransport::Socket, AppTransport::Grpc),
        (AppTransport::Grpc, AppTransport::Socket),
    ] {
        let service = Service::start(served, Arc::new(Noop));
        let app = AppConnections::connect(service.server.address(), spoken).unwrap();
        let error = app.query.info(&RequestInfo::default()).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
}

/// Reads one message of a node.
fn read_request(stream: &mut TcpStream) -> request::Value {
    let mut bytes = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
        if let Ok(request) = Request::decode_length_delimited(&bytes[..]) {
            return request.value.unwrap();
        }
    }
}

#[test]
fn a_flush_follows_when_the_first_transaction_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, seen) = channel();
    let app = thread::spawn(move || {
        // Query, snapshot, mempool, consensus, as CometBFT's.
        let mut streams: Vec<_> = (0..4).map(|_| listener.accept().unwrap().0).collect();
        let mempool = &mut streams[2];
        for _ in 0..3 {
            assert!(matches!(read_request(mempool), request::Value::CheckTx(_)));
            tell.send("checked").unwrap();
        }
        assert!(matches!(read_request(mempool), request::Value::Flush(_)));
        tell.send("flushed").unwrap();
        for code in 0..3 {
            let response = ResponseCheckTx {
                code,
                ..ResponseCheckTx::default()
            };
            mempool
                .write_all(&framed(response::Value::CheckTx(response)))
                .unwrap();
        }
        let flush = framed(response::Value::Flush(ResponseFlush {}));
        mempool.write_all(&flush).unwrap();
        // Until the node closes.
        assert_eq!(mempool.read(&mut [0]).unwrap(), 0);
    });
    let address = format!("tcp://127.0.0.1:{port}").parse().unwrap();
    let node = AppConnections::connect(&address, AppTransport::Socket).unwrap();
    let request = RequestCheckTx::default();
    let begin = || node.mempool.begin_check_tx(&request).unwrap();
    let [first, second, third] = [begin(), begin(), begin()];
    for _ in 0..3 {
        assert_eq!(seen.recv_timeout(PATIENCE), Ok("checked"));
    }
    assert!(seen.try_recv().is_err(), "nobody waits yet");
    assert_eq!(second.wait().unwrap().code, 1);
    assert_eq!(seen.recv_timeout(PATIENCE), Ok("flushed"));
    assert_eq!(third.wait().unwrap().code, 2);
    assert_eq!(first.wait().unwrap().code, 0);
    drop(node);
    app.join().unwrap();
}

/// Sends bytes to a server of the socket protocol and reads until it closes.
fn answer_to(service: &Service, bytes: &[u8]) -> Vec<Response> {
    let AppAddress::Tcp { port, .. } = service.server.address() else {
        panic!("no port");
    };
    let mut stream = TcpStream::connect(("127.0.0.1", *port)).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let mut rest = &answer[..];
    let mut responses = Vec::new();
    while !rest.is_empty() {
        responses.push(Response::decode_length_delimited(&mut rest).unwrap());
    }
    responses
}

fn is_exception(response: &Response) -> bool {
    matches!(response.value, Some(response::Value::Exception(_)))
}

#[test]
fn a_server_answers_broken_requests_with_an_exception_and_goes_on() {
    let service = Service::start(AppTransport::Socket, Arc::new(Noop));
    let echo = asked(request::Value::Echo(RequestEcho {
        message: "hello".to_owned(),
    }));
    for (what, bytes) in [
        ("an empty message", vec![0]),
        ("an unknown call", vec![3, 0xaa, 0x01, 0]),
        ("no message", vec![2, 8, 1]),
        ("half a message", echo[..4].to_vec()),
        ("2 GiB", vec![0x80, 0x80, 0x80, 0x80, 8]),
        ("no length", vec![0xff; 20]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ] {
        let answers = answer_to(&service, &bytes);
        assert!(
            matches!(&answers[..], [only] if is_exception(only)),
            "{what}: {answers:?}"
        );
    }
    let flush = asked(request::Value::Flush(RequestFlush {}));
    let answers = answer_to(&service, &[echo, flush].concat());
    assert_eq!(answers.len(), 2);
    service.connect().query.echo("hello").unwrap();
}

#[test]
fn a_grpc_server_survives_what_is_no_grpc() {
    let service = Service::start(AppTransport::Grpc, Arc::new(Noop));
    let AppAddress::Tcp { port, .. } = service.server.address() else {
        panic!("no port");
    };
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100], &[0xff; 5000]] {
        let mut stream = TcpStream::connect(("127.0.0.1", *port)).unwrap();
        let _sent = stream.write_all(bytes);
        let _sent = stream.shutdown(Shutdown::Write);
        let _ended = stream.read_to_end(&mut Vec::new());
    }
    service.connect().query.echo("hello").unwrap();
    assert_eq!(TRANSPORTS.len(), 2);
}
