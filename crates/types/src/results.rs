//! Hash over the results of a block's transactions.
