//! The pool's scheduler: which height from whom, and what is known about each.
