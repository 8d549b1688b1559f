package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/cosmos/gogoproto/proto"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/crypto/ed25519"
	cmtcrypto "github.com/cometbft/cometbft/proto/tendermint/crypto"
)

func makeABCIWire(p plan) {
	d := newDocument(p.out, "abci.json", "Messages of the ABCI socket protocol as they stand on the wire")
	d.head["frames"] = "call: the method; message: tendermint.abci.Request<call> or Response<call>, as a body of gRPC has it; " +
		"frame: the Request or Response around it with its length, as types.WriteMessage writes it"
	d.head["stream_rule"] = "bytes are read with types.ReadMessage into tendermint.abci.Request until it refuses: " +
		"messages are what was read before, encoded again without length; end is the error (EOF between two messages)"
	rng := newDice(p.seed, "abci")
	for round := 0; round < p.rounds; round++ {
		for _, size := range []int{0, 1, 100, 4_000} {
			w := &wireMaker{document: d, rng: rng, size: size}
			w.requests(p)
			w.responses(p)
		}
	}
	for _, reason := range []string{"", "no such thing"} {
		exception := &abci.ResponseException{Error: reason}
		d.add("responses", obj{"call": "Exception", "message": pb(exception), "frame": frameOf(abci.ToResponseException(reason))})
	}
	wireStreams(d, rng)
	d.save()
}

func frameOf(m proto.Message) string {
	var b bytes.Buffer
	must(abci.WriteMessage(m, &b))
	return hx(b.Bytes())
}

// wireMaker fills messages with fields of about its size.
type wireMaker struct {
	document *document
	rng      *dice
	size     int
}

func (w *wireMaker) bytes() []byte {
	if w.size == 0 {
		return nil
	}
	return w.rng.bytes(1 + w.rng.intn(w.size))
}

func (w *wireMaker) number() int64 { return w.rng.int63n(int64(w.size)*1000 + 1) }

func (w *wireMaker) list() [][]byte {
	list := [][]byte{}
	for i := min(w.size, 5); i > 0; i-- {
		list = append(list, w.bytes())
	}
	return list
}

func (w *wireMaker) text() string {
	if w.size == 0 {
		return ""
	}
	return string(patternText(w.rng, min(w.size, 300)))
}

func callOf(m proto.Message) string {
	name := proto.MessageName(m)
	name = strings.TrimPrefix(name, "tendermint.abci.Request")
	return strings.TrimPrefix(name, "tendermint.abci.Response")
}

func (w *wireMaker) request(inner proto.Message, whole *abci.Request) {
	w.document.add("requests", obj{"call": callOf(inner), "message": pb(inner), "frame": frameOf(whole)})
}

func (w *wireMaker) response(inner proto.Message, whole *abci.Response) {
	w.document.add("responses", obj{"call": callOf(inner), "message": pb(inner), "frame": frameOf(whole)})
}

func (w *wireMaker) requests(p plan) {
	text := w.text()
	w.request(&abci.RequestEcho{Message: text}, abci.ToRequestEcho(text))
	w.request(&abci.RequestFlush{}, abci.ToRequestFlush())
	info := &abci.RequestInfo{Version: w.text(), BlockVersion: uint64(w.number()), P2PVersion: 8, AbciVersion: "2.0.0"}
	w.request(info, abci.ToRequestInfo(info))
	key := keyAt(p.seed, "abci", 0).PubKey().Bytes()
	init := &abci.RequestInitChain{
		Time: genesisTime, ChainId: w.text(), AppStateBytes: w.bytes(), InitialHeight: w.number(),
		Validators: []abci.ValidatorUpdate{abci.UpdateValidator(key, w.number(), ed25519.KeyType)},
	}
	w.request(init, abci.ToRequestInitChain(init))
	query := &abci.RequestQuery{Data: w.bytes(), Path: w.text(), Height: w.number(), Prove: w.rng.chance(50)}
	w.request(query, abci.ToRequestQuery(query))
	check := &abci.RequestCheckTx{Tx: w.bytes(), Type: abci.CheckTxType(w.rng.intn(2))}
	w.request(check, abci.ToRequestCheckTx(check))
	w.request(&abci.RequestCommit{}, abci.ToRequestCommit())
	list := &abci.RequestListSnapshots{}
	w.request(list, abci.ToRequestListSnapshots(list))
	offer := &abci.RequestOfferSnapshot{Snapshot: w.snapshot(), AppHash: w.bytes()}
	w.request(offer, abci.ToRequestOfferSnapshot(offer))
	load := &abci.RequestLoadSnapshotChunk{Height: uint64(w.number()), Format: 1, Chunk: uint32(w.size)}
	w.request(load, abci.ToRequestLoadSnapshotChunk(load))
	apply := &abci.RequestApplySnapshotChunk{Index: uint32(w.size), Chunk: w.bytes(), Sender: w.text()}
	w.request(apply, abci.ToRequestApplySnapshotChunk(apply))
	votes := abci.CommitInfo{Round: int32(w.size), Votes: []abci.VoteInfo{{Validator: w.validator(), BlockIdFlag: 2}}}
	prepare := &abci.RequestPrepareProposal{
		MaxTxBytes: w.number(), Txs: w.list(), Height: w.number(), Time: genesisTime, ProposerAddress: w.bytes(),
		LocalLastCommit: abci.ExtendedCommitInfo{Votes: []abci.ExtendedVoteInfo{{Validator: w.validator(), VoteExtension: w.bytes()}}},
	}
	w.request(prepare, abci.ToRequestPrepareProposal(prepare))
	process := &abci.RequestProcessProposal{Txs: w.list(), ProposedLastCommit: votes, Hash: w.bytes(), Height: w.number(), Time: genesisTime}
	w.request(process, abci.ToRequestProcessProposal(process))
	extend := &abci.RequestExtendVote{Hash: w.bytes(), Height: w.number(), Time: genesisTime, Txs: w.list(), ProposedLastCommit: votes}
	w.request(extend, abci.ToRequestExtendVote(extend))
	verify := &abci.RequestVerifyVoteExtension{Hash: w.bytes(), ValidatorAddress: w.bytes(), Height: w.number(), VoteExtension: w.bytes()}
	w.request(verify, abci.ToRequestVerifyVoteExtension(verify))
	finalize := &abci.RequestFinalizeBlock{
		Txs: w.list(), DecidedLastCommit: votes, Hash: w.bytes(), Height: w.number(), Time: genesisTime,
		Misbehavior: []abci.Misbehavior{{Type: 1, Validator: w.validator(), Height: w.number(), Time: genesisTime, TotalVotingPower: 9}},
	}
	w.request(finalize, abci.ToRequestFinalizeBlock(finalize))
}

func (w *wireMaker) responses(p plan) {
	text := w.text()
	w.response(&abci.ResponseEcho{Message: text}, abci.ToResponseEcho(text))
	w.response(&abci.ResponseFlush{}, abci.ToResponseFlush())
	info := &abci.ResponseInfo{Data: w.text(), Version: w.text(), AppVersion: 1, LastBlockHeight: w.number(), LastBlockAppHash: w.bytes()}
	w.response(info, abci.ToResponseInfo(info))
	key := keyAt(p.seed, "abci", 0).PubKey().Bytes()
	updates := []abci.ValidatorUpdate{abci.UpdateValidator(key, w.number(), ed25519.KeyType)}
	init := &abci.ResponseInitChain{Validators: updates, AppHash: w.bytes()}
	w.response(init, abci.ToResponseInitChain(init))
	query := &abci.ResponseQuery{
		Code: uint32(w.size), Log: w.text(), Index: -1, Key: w.bytes(), Value: w.bytes(), Height: w.number(), Codespace: w.text(),
		ProofOps: &cmtcrypto.ProofOps{Ops: []cmtcrypto.ProofOp{{Type: "t", Key: w.bytes(), Data: w.bytes()}}},
	}
	w.response(query, abci.ToResponseQuery(query))
	events := []abci.Event{{Type: w.text(), Attributes: []abci.EventAttribute{{Key: w.text(), Value: w.text(), Index: true}}}}
	check := &abci.ResponseCheckTx{Code: 1, Data: w.bytes(), GasWanted: w.number(), GasUsed: -1, Events: events}
	w.response(check, abci.ToResponseCheckTx(check))
	commit := &abci.ResponseCommit{RetainHeight: w.number()}
	w.response(commit, abci.ToResponseCommit(commit))
	list := &abci.ResponseListSnapshots{Snapshots: []*abci.Snapshot{w.snapshot(), {}}}
	w.response(list, abci.ToResponseListSnapshots(list))
	offer := &abci.ResponseOfferSnapshot{Result: abci.ResponseOfferSnapshot_Result(w.rng.intn(6))}
	w.response(offer, abci.ToResponseOfferSnapshot(offer))
	load := &abci.ResponseLoadSnapshotChunk{Chunk: w.bytes()}
	w.response(load, abci.ToResponseLoadSnapshotChunk(load))
	apply := &abci.ResponseApplySnapshotChunk{Result: 3, RefetchChunks: []uint32{0, 7, uint32(w.size)}, RejectSenders: []string{w.text()}}
	w.response(apply, abci.ToResponseApplySnapshotChunk(apply))
	prepare := &abci.ResponsePrepareProposal{Txs: w.list()}
	w.response(prepare, abci.ToResponsePrepareProposal(prepare))
	process := &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ProposalStatus(w.rng.intn(3))}
	w.response(process, abci.ToResponseProcessProposal(process))
	extend := &abci.ResponseExtendVote{VoteExtension: w.bytes()}
	w.response(extend, abci.ToResponseExtendVote(extend))
	verify := &abci.ResponseVerifyVoteExtension{Status: abci.ResponseVerifyVoteExtension_VerifyStatus(w.rng.intn(3))}
	w.response(verify, abci.ToResponseVerifyVoteExtension(verify))
	finalize := &abci.ResponseFinalizeBlock{
		Events: events, TxResults: []*abci.ExecTxResult{{Code: 3, Data: w.bytes(), Events: events}, {}}, ValidatorUpdates: updates, AppHash: w.bytes(),
	}
	w.response(finalize, abci.ToResponseFinalizeBlock(finalize))
}

func (w *wireMaker) snapshot() *abci.Snapshot {
	return &abci.Snapshot{Height: uint64(w.number()), Format: 1, Chunks: 3, Hash: w.bytes(), Metadata: w.bytes()}
}

func (w *wireMaker) validator() abci.Validator {
	return abci.Validator{Address: w.rng.bytes(20), Power: w.number()}
}

// wireStreams reads streams that are whole, cut and bent.
func wireStreams(d *document, rng *dice) {
	echo := unhex(frameOf(abci.ToRequestEcho("hello")))
	flush := unhex(frameOf(abci.ToRequestFlush()))
	both := append(append([]byte{}, echo...), flush...)
	read := func(name string, stream []byte) {
		reader := bytes.NewReader(stream)
		messages := []string{}
		for {
			request := new(abci.Request)
			err := abci.ReadMessage(reader, request)
			if err != nil {
				d.add("streams", obj{"name": name, "bytes": hx(stream), "messages": messages, "end": err.Error(), "is_eof": err == io.EOF})
				return
			}
			messages = append(messages, pb(request))
		}
	}
	read("nothing", nil)
	read("two messages", both)
	read("the same three times", bytes.Repeat(both, 3))
	for cut := 1; cut < len(both); cut++ {
		read(fmt.Sprintf("two messages, cut after %d bytes", cut), both[:cut])
	}
	read("an empty message", append([]byte{0}, both...))
	// Lengths in more bytes than they need.
	read("a length with a zero group behind it", append([]byte{echo[0] | 0x80, 0}, echo[1:]...))
	read("a length of ten bytes", append(append([]byte{echo[0] | 0x80}, bytes.Repeat([]byte{0x80}, 8)...), append([]byte{0}, echo[1:]...)...))
	read("a length of ten bytes, the last 2", append(bytes.Repeat([]byte{0x80}, 9), 2))
	read("a length of eleven bytes", append(bytes.Repeat([]byte{0x80}, 10), 0))
	for _, length := range []uint64{1<<31 - 1, 1 << 31, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		read(fmt.Sprintf("a length of %d", length), append(binary.AppendUvarint(nil, length), echo[1:]...))
	}
	read("an unknown field beside the message", append([]byte{byte(len(echo) + 2), 0xf8, 0x7f, 1}, echo[1:]...))
	read("a message of an unknown kind", []byte{5, 0xc2, 0x3e, 2, 1, 2})
	read("an inner length beyond the message", []byte{3, 0x0a, 9, 0})
	read("a field that is no message", []byte{2, 0x08, 1})
	read("an end of a group", []byte{1, 0x0c})
	read("field number 0", []byte{2, 0x02, 0})
	for i := 0; i < 20; i++ {
		bent := append([]byte{}, both...)
		at := rng.intn(len(bent))
		bent[at] ^= byte(1 << rng.intn(7)) // a text stays one
		read(fmt.Sprintf("two messages, byte %d bent to %#02x", at, bent[at]), bent)
	}
}
