"""Room 4, which tokens count: examples become tokens with the factors and the draw of their mask.

syntax     spaCy: words, pos (content words) and dep (subject, object, root), each 0 or 1
words      the words of a chunk of texts as arrays, and where they are kept
tfidf      scikit-learn: how telling a word is of its text, in (0,1]; a corpus in two passes
align      words to tokens, by spans of code points
keep       keep_prob = sigmoid(alpha tfidf + beta pos + gamma dep + delta random + bias),
           key_mask = u < keep_prob
encode, distinct, factors, draw, arrays
           a block of examples: as tokens, its new texts, its factors, its mask; their files
corpus     the factors of all blocks, kept and resumable
workers, ray_workers
           who does it: this machine's cores, or a Ray cluster
build      run: examples.jsonl -> masked.parquet, corpus.json, tokenizer/ and, where told, soft/
prompts    the same mask for new prompts
soft_targets  a teacher's log-probabilities, moved to the student's tokens by bytes

sns_tokenizer, treebank, roughen, train_annotator, score_annotator, annotator_notice
           how the pipeline that ships with the package (assets/en_sns) is made and measured
"""
