package main

import (
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"github.com/cosmos/gogoproto/proto"

	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	cmtversion "github.com/cometbft/cometbft/proto/tendermint/version"
	"github.com/cometbft/cometbft/types"
)

func makeEncodings(p plan) {
	d := newDocument(p.out, "block_encodings.json", "One block in other encodings than the usual one, and what is read of each")
	d.head["verdicts"] = "unmarshal: proto.Unmarshal of the bytes; from_proto: BlockFromProto of what it gives"
	d.head["splices"] = "block: bytes from..to of the usual encoding are replaced by put; reads: the same, for what " +
		"proto.Marshal writes of the message that was read, and encodes: of the block; the former is absent where it is " +
		"the usual encoding, the latter where it is as the former"
	e := &encodingMaker{document: d, base: encodedBlock(p)}
	d.head["usual"] = hx(e.base)
	e.add("as it is", e.base)
	e.everywhere()
	e.alone()
	d.save()
}

// encodedBlock is a small block that has every message that blocks may have.
func encodedBlock(p plan) []byte {
	rng := newDice(p.seed, "block encodings")
	key := keyAt(p.seed, "block encodings", 0)
	val := types.NewValidator(key.PubKey(), 10)
	set := types.NewValidatorSet([]*types.Validator{val})
	vote := func() *types.Vote {
		return &types.Vote{
			Type: cmtproto.PrecommitType, Height: 300, Round: 1, BlockID: blockIDOf(rng, 1), Timestamp: genesisTime,
			ValidatorAddress: val.Address, ValidatorIndex: 2, Signature: rng.bytes(64),
		}
	}
	twice := must1(types.NewDuplicateVoteEvidence(vote(), vote(), genesisTime.Add(time.Minute), set))
	forged := encodedHeader(rng, val)
	forged.ValidatorsHash = set.Hash()
	commit := commitOf(rng, val, forged.Height, forged.Hash())
	attack := &types.LightClientAttackEvidence{
		ConflictingBlock: &types.LightBlock{SignedHeader: &types.SignedHeader{Header: &forged, Commit: commit}, ValidatorSet: set},
		CommonHeight:     300, ByzantineValidators: []*types.Validator{val}, TotalVotingPower: 10, Timestamp: genesisTime,
	}
	last := commitOf(rng, val, 4241, rng.bytes(32))
	last.Signatures = append(last.Signatures, types.NewCommitSigAbsent())
	block := types.MakeBlock(4242, types.Txs{rng.bytes(5), {}, rng.bytes(3)}, last, types.EvidenceList{twice, attack})
	header := encodedHeader(rng, val)
	header.LastCommitHash, header.DataHash, header.EvidenceHash = block.LastCommitHash, block.DataHash, block.EvidenceHash
	block.Header = header
	must(block.ValidateBasic())
	return must1(proto.Marshal(must1(block.ToProto())))
}

func encodedHeader(rng *dice, val *types.Validator) types.Header {
	return types.Header{
		Version: cmtversion.Consensus{Block: 11, App: 1}, ChainID: "test-chain", Height: 4242, Time: genesisTime,
		LastBlockID: blockIDOf(rng, 3), LastCommitHash: rng.bytes(32), DataHash: rng.bytes(32), ValidatorsHash: rng.bytes(32),
		NextValidatorsHash: rng.bytes(32), ConsensusHash: rng.bytes(32), AppHash: rng.bytes(8), LastResultsHash: rng.bytes(32),
		EvidenceHash: rng.bytes(32), ProposerAddress: val.Address,
	}
}

func commitOf(rng *dice, val *types.Validator, height int64, hash []byte) *types.Commit {
	id := blockIDOf(rng, 1)
	id.Hash = hash
	sig := types.CommitSig{
		BlockIDFlag: types.BlockIDFlagCommit, ValidatorAddress: val.Address, Timestamp: genesisTime, Signature: rng.bytes(64),
	}
	return &types.Commit{Height: height, Round: 1, BlockID: id, Signatures: []types.CommitSig{sig}}
}

// encodingMaker writes the block in other ways.
type encodingMaker struct {
	document *document
	base     []byte
}

// add reads an encoding and writes down what it is.
func (e *encodingMaker) add(name string, raw []byte) {
	row := obj{"name": name, "block": splice(e.base, raw)}
	var message cmtproto.Block
	err := proto.Unmarshal(raw, &message)
	row["unmarshal"] = verdict(func() error { return err })
	if err == nil {
		read := must1(proto.Marshal(&message))
		if !slices.Equal(read, e.base) {
			row["reads"] = splice(e.base, read)
		}
		block, err := types.BlockFromProto(&message)
		row["from_proto"] = verdict(func() error { return err })
		if err == nil {
			row["hash"] = hx(block.Hash())
			if encoded := must1(proto.Marshal(must1(block.ToProto()))); !slices.Equal(encoded, read) {
				row["encodes"] = splice(e.base, encoded)
			}
		}
	}
	e.document.add("cases", row)
}

// splice tells how other comes from base.
func splice(base, other []byte) obj {
	short := min(len(base), len(other))
	from := 0
	for from < short && base[from] == other[from] {
		from++
	}
	behind := 0
	for behind < short-from && base[len(base)-1-behind] == other[len(other)-1-behind] {
		behind++
	}
	return obj{"from": from, "to": len(base) - behind, "put": hx(other[from : len(other)-behind])}
}

// field is one field of a message as it is encoded.
type field struct {
	number, wire uint64
	tag, length  []byte // length only where it is length-delimited
	content      []byte
}

func (f field) bytes() []byte { return slices.Concat(f.tag, f.length, f.content) }

func lengthField(number uint64, content []byte) field {
	return field{
		number: number, wire: 2, tag: binary.AppendUvarint(nil, number<<3|2),
		length: binary.AppendUvarint(nil, uint64(len(content))), content: content,
	}
}

func varintField(number, value uint64) field {
	return field{number: number, tag: binary.AppendUvarint(nil, number<<3), content: binary.AppendUvarint(nil, value)}
}

func joined(fields []field) []byte {
	var b []byte
	for _, f := range fields {
		b = append(b, f.bytes()...)
	}
	return b
}

// fieldsOf takes a message apart that is encoded as usual.
func fieldsOf(raw []byte) []field {
	var fields []field
	for len(raw) > 0 {
		tag, n := binary.Uvarint(raw)
		f := field{number: tag >> 3, wire: tag & 7, tag: raw[:n]}
		raw = raw[n:]
		value, n := binary.Uvarint(raw)
		if f.wire == 2 {
			f.length, f.content, raw = raw[:n], raw[n:n+int(value)], raw[n+int(value):]
		} else {
			f.content, raw = raw[:n], raw[n:]
		}
		fields = append(fields, f)
	}
	return fields
}

// place is the way to a message in the block: the fields' numbers, each with which of a repeated field it is.
type place struct {
	name string
	way  []uint64
}

// second is the second occurrence of a field.
const second = 1 << 8

var places = []place{
	{"block", nil},
	{"header", []uint64{1}},
	{"version", []uint64{1, 1}},
	{"header's time", []uint64{1, 4}},
	{"last block id", []uint64{1, 5}},
	{"its part set header", []uint64{1, 5, 2}},
	{"data", []uint64{2}},
	{"evidence list", []uint64{3}},
	{"evidence of votes", []uint64{3, 1}},
	{"duplicate votes", []uint64{3, 1, 1}},
	{"vote", []uint64{3, 1, 1, 1}},
	{"vote's block id", []uint64{3, 1, 1, 1, 4}},
	{"vote's time", []uint64{3, 1, 1, 1, 5}},
	{"evidence's time", []uint64{3, 1, 1, 5}},
	{"evidence of an attack", []uint64{3, second | 1}},
	{"attack", []uint64{3, second | 1, 2}},
	{"light block", []uint64{3, second | 1, 2, 1}},
	{"signed header", []uint64{3, second | 1, 2, 1, 1}},
	{"forged header", []uint64{3, second | 1, 2, 1, 1, 1}},
	{"forged commit", []uint64{3, second | 1, 2, 1, 1, 2}},
	{"validator set", []uint64{3, second | 1, 2, 1, 2}},
	{"validator", []uint64{3, second | 1, 2, 1, 2, 1}},
	{"public key", []uint64{3, second | 1, 2, 1, 2, 1, 2}},
	{"byzantine validator", []uint64{3, second | 1, 2, 3}},
	{"commit", []uint64{4}},
	{"commit's block id", []uint64{4, 3}},
	{"signature", []uint64{4, 4}},
	{"signature's time", []uint64{4, 4, 3}},
}

// thorough are the places where each way of writing is tried: one for each kind of field. The others
// are read by code of the same making, and only these ways are tried there.
var thorough = map[string]bool{
	"block": true, "header": true, "header's time": true, "data": true, "evidence of votes": true, "public key": true,
	"signature": true,
}

var elsewhere = map[string]bool{
	"unknown group, other ends": true, "tag in ten bytes": true, "tag beyond 32 bits": true, "another wire type": true,
	"in reverse": true, "long numbers": true, "numbers with bits beyond 32": true, "negative numbers of 32 bits": true,
	"numbers and bytes are zero last": true, "nothing": true, "content twice": true, "twice": true, "not there": true,
	"nothing behind": true, "malformed before": true, "cut in two between fields": true, "cut in two within a field": true,
}

func (at place) takes(what string) bool { return thorough[at.name] || elsewhere[what] }

// edit changes the field that holds the message at a place.
func edit(raw []byte, way []uint64, change func(f field) []byte) []byte {
	var b []byte
	wanted, nth := way[0]%second, way[0]/second
	for _, f := range fieldsOf(raw) {
		switch {
		case f.number != wanted:
			b = append(b, f.bytes()...)
			continue
		case nth != 0:
			b = append(b, f.bytes()...)
		case len(way) == 1:
			b = append(b, change(f)...)
		default:
			b = append(b, lengthField(f.number, edit(f.content, way[1:], change)).bytes()...)
		}
		nth--
	}
	return b
}

// inside changes the content of the message at a place.
func (e *encodingMaker) inside(at place, what string, change func(raw []byte) []byte) {
	if at.way == nil {
		e.add(at.name+": "+what, change(e.base))
		return
	}
	e.around(at, what, func(f field) []byte { return lengthField(f.number, change(f.content)).bytes() })
}

// around changes the field that holds it.
func (e *encodingMaker) around(at place, what string, change func(f field) []byte) {
	if at.way != nil && at.takes(what) {
		e.add(at.name+": "+what, edit(e.base, at.way, change))
	}
}

// padded encodes a number in so many bytes, with more bits in the last of ten than it may have.
func padded(value uint64, length int) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(value)&0x7f | 0x80
		value >>= 7
	}
	b[length-1] &= 0x7f
	if length == 10 {
		b[9] |= 0x7e
	}
	return b
}

// retagged is a field with its tag in other bytes.
func retagged(f field, tag []byte) []byte { return slices.Concat(tag, f.length, f.content) }

// rest is all of a message behind its first field.
func rest(raw []byte) (first field, behind []byte) {
	fields := fieldsOf(raw)
	return fields[0], joined(fields[1:])
}

// everywhere writes each message of the block in each way.
func (e *encodingMaker) everywhere() {
	appended := map[string][]byte{
		"unknown varint":                       {0x78, 5},
		"unknown varint of ten bytes":          append([]byte{0x78}, padded(5, 10)...),
		"unknown varint of eleven bytes":       append([]byte{0x78}, padded(5, 11)...),
		"unknown bytes":                        {0x7a, 1, 2},
		"unknown bytes beyond the end":         {0x7a, 2, 2},
		"unknown bytes of negative length":     append([]byte{0x7a}, padded(1<<63, 10)...),
		"unknown eight bytes":                  {0x79, 1, 2, 3, 4, 5, 6, 7, 8},
		"unknown four bytes, cut":              {0x7d, 1, 2, 3},
		"unknown group":                        {0x7b, 0x08, 1, 0x7b, 0x7c, 0x00, 0x01, 0x7c},
		"unknown group, other ends":            {0x7b, 0x0b, 0x1c, 0x2c},
		"unknown group without end":            {0x7b, 0x08, 1},
		"end of a group":                       {0x7c},
		"wire type 6":                          {0x7e, 0},
		"field number 0":                       {0x00, 1},
		"field number 0, bytes":                {0x02, 0},
		"negative field number":                binary.AppendUvarint(nil, (1<<31+15)<<3),
		"field number beyond 32 bits":          append(binary.AppendUvarint(nil, (5<<32+15)<<3), 1),
		"a field number's multiple of 2 ** 32": append(binary.AppendUvarint(nil, (1<<32)<<3), 1),
		"large field number":                   append(binary.AppendUvarint(nil, (1<<31-1)<<3), 1),
		"cut tag":                              {0x80},
	}
	for _, at := range places {
		for _, what := range sortedKeys(appended) {
			e.inside(at, what, func(raw []byte) []byte { return slices.Concat(raw, appended[what]) })
		}
		e.everywhereTags(at)
		e.everywhereTwice(at)
	}
}

// everywhereTags writes tags, lengths and numbers in other ways.
func (e *encodingMaker) everywhereTags(at place) {
	first := func(what string, change func(f field) []byte) {
		e.inside(at, what, func(raw []byte) []byte {
			f, behind := rest(raw)
			return slices.Concat(change(f), behind)
		})
	}
	first("tag in two bytes", func(f field) []byte { return retagged(f, padded(f.number<<3|f.wire, 2)) })
	first("tag in ten bytes", func(f field) []byte { return retagged(f, padded(f.number<<3|f.wire, 10)) })
	first("tag in eleven bytes", func(f field) []byte { return retagged(f, padded(f.number<<3|f.wire, 11)) })
	first("tag beyond 32 bits", func(f field) []byte {
		return retagged(f, binary.AppendUvarint(nil, (7<<32|f.number)<<3|f.wire))
	})
	first("another wire type", func(f field) []byte { return []byte{byte(f.number<<3 | (2 - f.wire)), 0} })
	first("as a group", func(f field) []byte { return []byte{byte(f.number<<3 | 3), byte(f.number<<3 | 4)} })
	first("as four bytes", func(f field) []byte { return []byte{byte(f.number<<3 | 5), 0, 0, 0, 0} })
	first("cut", func(f field) []byte { return nil })
	e.inside(at, "cut in the last field", func(raw []byte) []byte { return raw[:len(raw)-1] })
	e.inside(at, "in reverse", func(raw []byte) []byte {
		fields := fieldsOf(raw)
		slices.Reverse(fields)
		return joined(fields)
	})
	e.inside(at, "long numbers", func(raw []byte) []byte {
		fields := fieldsOf(raw)
		for i, f := range fields {
			if f.wire == 0 {
				value, _ := binary.Uvarint(f.content)
				fields[i].content = padded(value, 10)
			} else {
				fields[i].length = padded(uint64(len(f.content)), 10)
			}
		}
		return joined(fields)
	})
	for _, n := range []int{2, 5, 9} {
		e.inside(at, "lengths in more bytes, "+strings.Repeat("x", n), func(raw []byte) []byte {
			fields := fieldsOf(raw)
			for i, f := range fields {
				if f.wire == 2 && len(f.content) < 1<<14 {
					fields[i].length = padded(uint64(len(f.content)), n)
				}
			}
			return joined(fields)
		})
	}
	e.inside(at, "numbers with bits beyond 32", func(raw []byte) []byte {
		fields := fieldsOf(raw)
		for i, f := range fields {
			if value, _ := binary.Uvarint(f.content); f.wire == 0 {
				fields[i].content = binary.AppendUvarint(nil, value|9<<32)
			}
		}
		return joined(fields)
	})
	e.inside(at, "negative numbers of 32 bits", func(raw []byte) []byte {
		fields := fieldsOf(raw)
		for i, f := range fields {
			if f.wire == 0 {
				fields[i].content = binary.AppendUvarint(nil, 1<<32-1)
			}
		}
		return joined(fields)
	})
	e.inside(at, "negative numbers", func(raw []byte) []byte {
		fields := fieldsOf(raw)
		for i, f := range fields {
			if f.wire == 0 {
				fields[i].content = binary.AppendUvarint(nil, 1<<64-1)
			}
		}
		return joined(fields)
	})
	e.inside(at, "numbers and bytes are zero first", func(raw []byte) []byte { return slices.Concat(zeros(raw), raw) })
	e.inside(at, "numbers and bytes are zero last", func(raw []byte) []byte { return slices.Concat(raw, zeros(raw)) })
	e.inside(at, "nothing", func([]byte) []byte { return nil })
}

// zeros are a message's fields with nothing in them.
func zeros(raw []byte) []byte {
	fields := fieldsOf(raw)
	for i, f := range fields {
		if f.wire == 0 {
			fields[i].content = []byte{0}
		} else {
			fields[i].length, fields[i].content = []byte{0}, nil
		}
	}
	return joined(fields)
}

// everywhereTwice gives messages and fields more than once.
func (e *encodingMaker) everywhereTwice(at place) {
	e.inside(at, "content twice", func(raw []byte) []byte { return slices.Concat(raw, raw) })
	e.around(at, "twice", func(f field) []byte { return slices.Concat(f.bytes(), f.bytes()) })
	e.around(at, "nothing before", func(f field) []byte { return slices.Concat(lengthField(f.number, nil).bytes(), f.bytes()) })
	e.around(at, "nothing behind", func(f field) []byte { return slices.Concat(f.bytes(), lengthField(f.number, nil).bytes()) })
	e.around(at, "not there", func(field) []byte { return nil })
	e.around(at, "malformed before", func(f field) []byte {
		return slices.Concat(lengthField(f.number, []byte{0x80}).bytes(), f.bytes())
	})
	e.around(at, "malformed behind", func(f field) []byte {
		return slices.Concat(f.bytes(), lengthField(f.number, []byte{0x09}).bytes())
	})
	e.around(at, "cut in two between fields", func(f field) []byte {
		one, behind := rest(f.content)
		return slices.Concat(lengthField(f.number, one.bytes()).bytes(), lengthField(f.number, behind).bytes())
	})
	e.around(at, "cut in two within a field", func(f field) []byte {
		half := len(f.content) - 1
		return slices.Concat(lengthField(f.number, f.content[:half]).bytes(), lengthField(f.number, f.content[half:]).bytes())
	})
	e.around(at, "other numbers before", func(f field) []byte {
		return slices.Concat(lengthField(f.number, slices.Concat(varintField(1, 1).bytes(), varintField(2, 7).bytes())).bytes(), f.bytes())
	})
}

// only changes the content of the message at a place, whatever is tried there.
func (e *encodingMaker) only(at place, what string, change func(raw []byte) []byte) {
	e.add(at.name+": "+what, edit(e.base, at.way, func(f field) []byte {
		return lengthField(f.number, change(f.content)).bytes()
	}))
}

// alone are encodings that only one message has.
func (e *encodingMaker) alone() {
	find := func(name string) place {
		return places[slices.IndexFunc(places, func(at place) bool { return at.name == name })]
	}
	behind := func(name, what string, more ...field) {
		e.only(find(name), what, func(raw []byte) []byte { return slices.Concat(raw, joined(more)) })
	}
	before := func(name, what string, more ...field) {
		e.only(find(name), what, func(raw []byte) []byte { return slices.Concat(joined(more), raw) })
	}
	text := []byte{0xff, 0xfe}
	before("header", "no UTF-8 in the first chain id", lengthField(2, text))
	behind("header", "no UTF-8 in the chain id", lengthField(2, text))
	behind("forged header", "no UTF-8 in the first chain id", lengthField(2, text), lengthField(2, []byte("test-chain")))
	impossible := joined([]field{varintField(1, 1<<62)})
	nanos := joined([]field{varintField(2, 1_000_000_000)})
	for _, it := range []struct {
		name   string
		number uint64
	}{{"header", 4}, {"signature", 3}, {"vote", 5}, {"duplicate votes", 5}, {"attack", 5}, {"forged header", 4}} {
		before(it.name, "an impossible time first", lengthField(it.number, impossible))
		before(it.name, "impossible nanoseconds first", lengthField(it.number, nanos))
		before(it.name, "seconds alone first", lengthField(it.number, joined([]field{varintField(1, 7)})))
		behind(it.name, "seconds alone behind", lengthField(it.number, joined([]field{varintField(1, 7)})))
		behind(it.name, "nanoseconds alone behind", lengthField(it.number, joined([]field{varintField(2, 7)})))
	}
	whole := func(name string) []byte {
		var content []byte
		edit(e.base, find(name).way, func(f field) []byte {
			content = f.content
			return nil
		})
		return content
	}
	votes, attack := whole("duplicate votes"), whole("attack")
	before("evidence of votes", "an attack first", lengthField(2, attack))
	behind("evidence of votes", "an attack behind", lengthField(2, attack))
	before("evidence of votes", "an empty attack first", lengthField(2, nil))
	before("evidence of votes", "a malformed attack first", lengthField(2, []byte{0x80}))
	before("evidence of an attack", "votes first", lengthField(1, votes))
	behind("evidence of an attack", "votes behind", lengthField(1, votes))
	before("evidence of an attack", "another attack first", lengthField(2, joined([]field{varintField(2, 299), varintField(4, 9)})))
	before("evidence of votes", "other votes first", lengthField(1, joined([]field{varintField(3, 299), varintField(4, 9)})))
	key := whole("public key")
	for kind := uint64(1); kind <= 6; kind++ {
		name := []string{"", "ed25519", "secp256k1", "kind 3", "kind 4", "kind 5", "kind 6"}[kind]
		before("public key", name+" first", lengthField(kind, []byte{1, 2}))
		behind("public key", name+" behind", lengthField(kind, fieldsOf(key)[0].content))
		before("public key", name+" as a number first", varintField(kind, 1))
	}
	e.only(find("data"), "a transaction beyond 32 bits", func(raw []byte) []byte {
		fields := fieldsOf(raw)
		fields[1].tag = binary.AppendUvarint(nil, (1<<32|1)<<3|2)
		return joined(fields)
	})
	before("data", "another field of a transaction's number", varintField(1, 1))
	e.add("all fields of the block apart", e.apart())
}

// apart gives each field of the block's messages an occurrence of that message.
func (e *encodingMaker) apart() []byte {
	var b []byte
	for _, f := range fieldsOf(e.base) {
		for _, inner := range fieldsOf(f.content) {
			b = append(b, lengthField(f.number, inner.bytes()).bytes()...)
		}
	}
	return b
}
