"""Room 5, the student: the Phi-3 family in Flax NNX, weights in and out as Hugging Face has them.

    config.py      Phi3Config: the numbers of a checkpoint that change what it computes
    hf_config.py   HF config.json -> Phi3Config -> config.json
    rope.py        rotary positions, partial and LongRoPE, reset at each packed segment
    attention.py   who attends to whom: causal, packed, windowed, and the three key-mask rules
    segments.py    the same as ids of queries and keys, which is what a kernel reads
    blockwise.py   attention block by block, on any backend
    splash.py      attention on a TPU
    channels.py    attention on a GPU through cuDNN
    layers.py      what a decoder layer is made of: projections, norms, attention, MLP
    phi3.py        the forward pass: embedding, scanned blocks, final norm, head
    sharding.py    logical axes -> mesh axes (data, fsdp, tensor)
    tensorfile.py  the safetensors container: read slices, write tensor by tensor
    lora.py        adapters of low rank beside frozen projections, and what they add up to
    weights.py     HF folder -> Phi3 -> HF folder
    student.py     the folder a student lives in between rooms 6 and 7
    opening.py     the model of either kind of folder
    rows.py        rows of unequal length -> batches of few distinct shapes
    sampling.py    how the next token is chosen
    decoding.py    a batch on its way: prefill and decode, compiled, with a key-value cache
    generate.py    continuation of prompts
    stream.py      `opengrok generate`: a prompt's answer, piece by piece
    student_stream.py  its parameters in blocks of rows, for models larger than the memory
    convert.py     `opengrok convert`: safetensors <-> a student's folder

Axis letters, the same in every signature of rooms 5-7:

    B  rows of a batch
    T  tokens in a row (several packed examples, told apart by `segment_ids`; 0 = padding)
    D  model width                      hidden_size
    F  MLP width                        intermediate_size
    N  query heads                      num_attention_heads
    K  key-value heads                  num_key_value_heads; N = K * G, G = queries per group
    H  head width                       hidden_size / num_attention_heads
    R  rotated pairs in a head          H * partial_rotary_factor / 2
    V  vocabulary                       vocab_size
    L  layers, the leading axis of every stacked block parameter

Weights keep the orientation of the checkpoint: a projection is (outputs, inputs), stacked
(L, outputs, inputs), so that a parameter is the HF tensor, bit by bit.
"""
