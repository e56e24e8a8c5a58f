"""Texts as integers, and back. The map of its files.

tokenizer     what all tokenizers are; vocabulary (characters, words), subwords, slots are some of them
load          the file of any tokenizer
lexicon       how words are pronounced
"""
