//! Chains of any shape, in memory: real keys, real signatures, consistent headers.
//!
//! A [`Shape`] says who the validators are at each height, how they vote and what the blocks hold;
//! [`Chain::grow`] makes the blocks. Nothing is executed: application hash and results hash are
//! what the shape says.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use perihelion_crypto::PrivateKey;
use perihelion_types::{
    Address, Block, BlockId, BlockIdFlag, Commit, CommitSig, Data, ExtendedCommit,
    ExtendedCommitSig, FetchedBlock, Hash, Header, Height, Round, SignedMsgType, Time, Validator,
    ValidatorSet, Version, Vote,
};

/// A validator of the kit: keys are made from these numbers.
pub type Person = u32;

/// What one validator does when a block is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// Precommits the block.
    Block,
    /// Precommits nil.
    Nil,
    /// Is silent.
    Absent,
    /// Precommits the block with a signature that does not hold.
    Forged,
}

/// How a chain looks.
#[derive(Clone)]
pub struct Shape {
    /// The chain's id.
    pub chain_id: String,
    /// The first height.
    pub initial_height: i64,
    /// Validators and their powers at a height.
    pub validators: Arc<dyn Fn(i64) -> Vec<(Person, i64)> + Send + Sync>,
    /// What a validator does when the block of a height is committed.
    pub casts: Arc<dyn Fn(i64, Person) -> Cast + Send + Sync>,
    /// The round in which a height is committed.
    pub rounds: Arc<dyn Fn(i64) -> i32 + Send + Sync>,
    /// Transactions of a block, and bytes of each.
    pub transactions: Arc<dyn Fn(i64) -> (usize, usize) + Send + Sync>,
    /// Application hash in the header of a height.
    pub app_hash: Arc<dyn Fn(i64) -> Bytes + Send + Sync>,
    /// From which height on precommits carry extensions.
    pub extensions_from: Option<i64>,
    /// A height whose block carries a last commit that no validator set signed like this: the
    /// proposer bent its round, which the header does not cover.
    pub bent_at: Option<i64>,
    /// Between the times of two blocks.
    pub spacing: Duration,
    /// Told apart from other chains of the same shape by their transactions.
    pub tag: String,
}

impl Shape {
    /// `people` validators of power 10, one transaction of 100 bytes a block.
    #[must_use]
    pub fn simple(people: Person) -> Self {
        Self {
            chain_id: "testkit".to_owned(),
            initial_height: 1,
            validators: Arc::new(move |_| (0..people).map(|person| (person, 10)).collect()),
            casts: Arc::new(|_, _| Cast::Block),
            rounds: Arc::new(|_| 0),
            transactions: Arc::new(|_| (1, 100)),
            app_hash: Arc::new(|_| Bytes::from_static(b"application")),
            extensions_from: None,
            bent_at: None,
            spacing: Duration::from_secs(1),
            tag: "main".to_owned(),
        }
    }

    /// The same with validators by height.
    #[must_use]
    pub fn with_validators(
        mut self,
        validators: impl Fn(i64) -> Vec<(Person, i64)> + Send + Sync + 'static,
    ) -> Self {
        self.validators = Arc::new(validators);
        self
    }

    /// The same with votes by height and validator.
    #[must_use]
    pub fn with_casts(
        mut self,
        casts: impl Fn(i64, Person) -> Cast + Send + Sync + 'static,
    ) -> Self {
        self.casts = Arc::new(casts);
        self
    }

    /// The same with this many transactions of this many bytes by height.
    #[must_use]
    pub fn with_transactions(
        mut self,
        transactions: impl Fn(i64) -> (usize, usize) + Send + Sync + 'static,
    ) -> Self {
        self.transactions = Arc::new(transactions);
        self
    }
}

/// A chain and everything that made it.
#[derive(Clone)]
pub struct Chain {
    shape: Shape,
    people: HashMap<Address, Person>,
    keys: HashMap<Person, PrivateKey>,
    sets: HashMap<i64, Arc<ValidatorSet>>,
    blocks: Vec<Arc<FetchedBlock>>,
}

impl Chain {
    /// A chain of `length` blocks.
    #[must_use]
    pub fn new(shape: Shape, length: usize) -> Self {
        let mut chain = Self {
            shape,
            people: HashMap::new(),
            keys: HashMap::new(),
            sets: HashMap::new(),
            blocks: Vec::new(),
        };
        chain.grow(length);
        chain
    }

    /// Adds blocks, each committed by the block after it as the shape says.
    pub fn grow(&mut self, count: usize) {
        for _ in 0..count {
            let height = self.height() + 1;
            self.learn(height);
            self.learn(height + 1);
            self.learn(height + 2);
            let last_commit = self.commit_of(height - 1);
            let block = self.fetched(self.make(height, last_commit));
            self.blocks.push(block);
        }
    }

    /// Another chain with the same blocks up to `height`, that goes on with other ones for
    /// `length` blocks as `change` has altered the shape.
    #[must_use]
    pub fn fork(&self, height: i64, length: usize, change: impl FnOnce(&mut Shape)) -> Self {
        let mut fork = self.clone();
        fork.blocks
            .truncate(usize::try_from(height - self.shape.initial_height + 1).unwrap_or(0));
        "fork".clone_into(&mut fork.shape.tag);
        change(&mut fork.shape);
        fork.sets.retain(|&known, _| known <= height + 1);
        fork.grow(length);
        fork
    }

    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The height of the last block; one below the initial height when there is none.
    #[must_use]
    pub fn height(&self) -> i64 {
        self.shape.initial_height - 1 + i64::try_from(self.blocks.len()).unwrap_or(i64::MAX)
    }

    /// The block at `height`, if the chain has it.
    #[must_use]
    pub fn block(&self, height: i64) -> Option<&Arc<FetchedBlock>> {
        let index = usize::try_from(height - self.shape.initial_height).ok()?;
        self.blocks.get(index)
    }

    /// The time of the block at `height`, made or not.
    ///
    /// # Panics
    /// When it is beyond all times.
    #[must_use]
    pub fn time(&self, height: i64) -> Time {
        let spacing = i64::try_from(self.shape.spacing.as_nanos()).expect("less than 292 years");
        let since = height.checked_mul(spacing);
        let time = since.and_then(|since| Time::new(1_700_000_000, 0).checked_add_nanos(since));
        time.expect("a time of this century")
    }

    /// The id of the block at `height`; nil below the first.
    #[must_use]
    pub fn id(&self, height: i64) -> BlockId {
        self.block(height)
            .map_or(BlockId::NIL, |block| block.block_id())
    }

    /// The validators of a height up to the chain's next one but one.
    ///
    /// # Panics
    /// Above that.
    #[must_use]
    pub fn set(&self, height: i64) -> Arc<ValidatorSet> {
        Arc::clone(&self.sets[&height.max(self.shape.initial_height)])
    }

    /// The key of a validator of the chain.
    #[must_use]
    pub fn key(&self, person: Person) -> PrivateKey {
        key(person)
    }

    /// A commit for the block `id` at `height`, in the order of the set of that height.
    #[must_use]
    pub fn commit(
        &self,
        height: i64,
        round: i32,
        id: BlockId,
        cast: impl Fn(Person) -> Cast,
    ) -> Commit {
        let set = self.set(height);
        let casts: Vec<(Person, Cast)> = set
            .validators()
            .iter()
            .map(|validator| self.people[&validator.address])
            .map(|person| (person, cast(person)))
            .collect();
        let mut commit = Commit {
            height: Height::new(height),
            round: Round::new(round),
            block_id: id,
            signatures: casts
                .iter()
                .map(|&(person, cast)| self.place(height, person, cast))
                .collect(),
        };
        for (index, &(person, cast)) in casts.iter().enumerate() {
            let Some(message) = commit.vote_sign_bytes(&self.shape.chain_id, index) else {
                continue;
            };
            if cast == Cast::Absent {
                continue;
            }
            let mut signature = self.keys[&person].sign(&message).to_vec();
            if cast == Cast::Forged {
                signature[40] ^= 1;
            }
            commit.signatures[index].signature = signature.into();
        }
        commit
    }

    /// The commit that the block above `height` carries.
    #[must_use]
    pub fn commit_of(&self, height: i64) -> Commit {
        if height < self.shape.initial_height {
            return Commit {
                height: Height::ZERO,
                round: Round::ZERO,
                block_id: BlockId::NIL,
                signatures: Vec::new(),
            };
        }
        let round = (self.shape.rounds)(height);
        let mut commit = self.commit(height, round, self.id(height), |person| {
            (self.shape.casts)(height, person)
        });
        if self.shape.bent_at == Some(height + 1) {
            commit.round = Round::new(round + 1);
        }
        commit
    }

    /// A block for `height` that carries `last_commit`; not part of the chain.
    #[must_use]
    pub fn make(&self, height: i64, last_commit: Commit) -> Block {
        let (count, size) = (self.shape.transactions)(height);
        let txs = (0..count).map(|index| {
            let mut tx = format!("{}-{height}-{index}=", self.shape.tag).into_bytes();
            tx.resize(size.max(tx.len()), b'.');
            tx
        });
        let data = Data::new(txs);
        let set = self.set(height);
        let header = Header {
            version: Version { block: 11, app: 1 },
            chain_id: self.shape.chain_id.clone(),
            height: Height::new(height),
            time: self.time(height),
            last_block_id: self.id(height - 1),
            last_commit_hash: last_commit.hash(),
            data_hash: data.hash(),
            validators_hash: set.hash(),
            next_validators_hash: self.set(height + 1).hash(),
            consensus_hash: Hash::of(b"parameters"),
            app_hash: (self.shape.app_hash)(height),
            last_results_hash: Hash::of(b""),
            evidence_hash: perihelion_types::evidence::hash_list(&[]),
            proposer_address: Bytes::copy_from_slice(set.validators()[0].address.as_bytes()),
        };
        Block {
            header,
            data,
            evidence: Vec::new(),
            last_commit: Some(last_commit),
        }
    }

    /// A block as it comes from a peer, with an extended commit where the chain has them.
    #[must_use]
    pub fn fetched(&self, block: Block) -> Arc<FetchedBlock> {
        let height = block.header.height.get();
        let raw = block.encode();
        let plain = decode(raw.clone(), None);
        let extended = self
            .shape
            .extensions_from
            .filter(|&from| height >= from)
            .map(|_| self.extended_commit(height, plain.block_id()).encode());
        match extended {
            Some(extended) => Arc::new(decode(raw, Some(extended))),
            None => Arc::new(plain),
        }
    }

    /// The precommits for a block with their extensions.
    #[must_use]
    pub fn extended_commit(&self, height: i64, id: BlockId) -> ExtendedCommit {
        let round = (self.shape.rounds)(height);
        let commit = self.commit(height, round, id, |person| {
            (self.shape.casts)(height, person)
        });
        let extend = |commit_sig: CommitSig| {
            let precommits = commit_sig.block_id_flag == BlockIdFlag::Commit;
            let extension = Bytes::from(if precommits {
                format!("at {height}")
            } else {
                String::new()
            });
            let signature = if precommits {
                self.sign_extension(height, round, id, &commit_sig, &extension)
            } else {
                Bytes::new()
            };
            ExtendedCommitSig {
                commit_sig,
                extension,
                extension_signature: signature,
            }
        };
        ExtendedCommit {
            height: commit.height,
            round: commit.round,
            block_id: id,
            extended_signatures: commit.signatures.into_iter().map(extend).collect(),
        }
    }

    fn sign_extension(
        &self,
        height: i64,
        round: i32,
        id: BlockId,
        place: &CommitSig,
        extension: &Bytes,
    ) -> Bytes {
        let vote = Vote {
            vote_type: SignedMsgType::Precommit,
            height: Height::new(height),
            round: Round::new(round),
            block_id: id,
            timestamp: place.timestamp,
            validator_address: place.validator_address.clone(),
            validator_index: 0,
            signature: Bytes::new(),
            extension: extension.clone(),
            extension_signature: Bytes::new(),
        };
        let address = Address::try_from(&place.validator_address[..]);
        let person = address.ok().and_then(|address| self.people.get(&address));
        let message = vote.extension_sign_bytes(&self.shape.chain_id);
        person.map_or_else(Bytes::new, |person| self.keys[person].sign(&message))
    }

    fn place(&self, height: i64, person: Person, cast: Cast) -> CommitSig {
        let block_id_flag = match cast {
            Cast::Absent => return CommitSig::absent(),
            Cast::Block | Cast::Forged => BlockIdFlag::Commit,
            Cast::Nil => BlockIdFlag::Nil,
        };
        let address = self.keys[&person].public_key().address();
        CommitSig {
            block_id_flag,
            validator_address: Bytes::copy_from_slice(address.as_bytes()),
            timestamp: self
                .time(height)
                .checked_add_nanos(1 + i64::from(person))
                .expect("a time of this century"),
            signature: Bytes::new(),
        }
    }

    /// Makes the validator set of a height, and the keys of who is new.
    fn learn(&mut self, height: i64) {
        if self.sets.contains_key(&height) {
            return;
        }
        let mut validators = Vec::new();
        for (person, power) in (self.shape.validators)(height) {
            let key = self.keys.entry(person).or_insert_with(|| key(person));
            let validator = Validator::new(key.public_key(), power);
            self.people.insert(validator.address, person);
            validators.push(validator);
        }
        let set = ValidatorSet::new(validators).expect("the shape names valid sets");
        self.sets.insert(height, Arc::new(set));
    }
}

/// The key of a validator.
#[must_use]
pub fn key(person: Person) -> PrivateKey {
    PrivateKey::ed25519_from_secret(&person.to_be_bytes())
}

fn decode(raw: Bytes, extended: Option<Bytes>) -> FetchedBlock {
    FetchedBlock::decode(raw, extended).expect("the kit makes blocks that decode")
}
