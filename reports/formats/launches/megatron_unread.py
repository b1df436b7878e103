"""Arguments of Megatron-LM and its launchers that change neither time nor memory of a step here."""

from __future__ import annotations

import re

UNREAD = re.compile(
    "|".join(
        (
            # where things lie, what is logged and evaluated, how long it goes on
            "(save|load|log|tensorboard|wandb|eval|exit|profile|data|train|valid|test|split|seed|dist|checkpoint|ckpt)(_.*)?",
            "(lr|min_lr|weight_decay|adam|sgd|clip|init_method|start|end|override|use_checkpoint|no_load|no_save|async)(_.*)?",
            "(tokenizer|vocab_file|merge_file|mock_data|num_workers|dataloader|reset|eod|create_attention|no_create).*",
            "(timing|manual_gc|finetune|auto_detect|distributed_(backend|timeout).*|use_mcore_models|use_legacy_models)(_.*)?",
            "(model_name|micro_batch_times|no_check_for_nan.*|check_for_nan.*|check_weight.*|ddp_bucket_size|ddp_.*|num_dataset.*)",
            "(master|node_rank|rdzv|max_restarts|tee|log_dir|redirects|standalone|local_rank|role|monitor_interval)(_.*)?",
            "(job_name|partition|account|time|output|error|mem|exclusive|gres|cpus_per_task|mail.*|container.*|signal|export)",
            "(mpi|ntasks|gpu_bind|cpu_bind|overcommit|qos|comment|constraint|exclude|requeue|dependency|[A-Zcejmnopt])",
            # positions that turn, numbers that scale, how weights begin
            "(rotary|rope|no_rope|use_rope|apply_(rope|query_key|layernorm|residual).*|norm_epsilon|layernorm_epsilon)(_.*)?",
            "(attention_(dropout|softmax_in_fp32)|no_query_key_layer_scaling|initial_loss_scale|loss_scale.*|hysteresis)",
            "(moe_(aux|z|input|router_(load|score|bias|enable|dtype|pre|topk_scaling|group|num_groups|topk_limited|fusion)).*)",
            "(moe_(grouped_gemm|permute_fusion|per_layer_logging|use_legacy_grouped_gemm|shared_expert_overlap|use_upcycling))",
            "(mscale.*|q_head_dim|original_max_position_embeddings|beta_(fast|slow)|squared_relu|activation|bias_.*_fusion)",
            # kernels and buffers that give the same work
            "(no_(masked|bias|rope|gradient|persist|async|barrier|contiguous|scatter|initialization|data).*)",
            "(masked_softmax_fusion|gradient_accumulation_fusion|persist_layer_norm|bias_(swiglu|gelu|dropout)_fusion)",
            "(use_cpu_initialization|use_fused_.*|transformer_impl|use_transformer_engine_op_fuser|nccl.*|sharp.*|use_sharp)",
            "(fp8_(margin|interval|amax.*|recipe|param.*|wgrad|dot.*|multi.*)|overlap_p2p_comm.*|align_.*|batch_p2p_comm)",
            "(deallocate_pipeline_outputs|use_precision_aware_optimizer|main_(grads|params)_dtype|high_priority.*|deterministic.*)",
            "(empty_unused_memory_level|average_in_collective|overlap_param_gather_with_optimizer_step|apply_layernorm_1p)",
            "(attention_output_gate|te_rng.*|cuda_graph_(scope|warmup.*|use.*)|tp_comm_(bulk|split|overlap_(ag|rs|cfg|rs_dgrad)).*)",
            "(use_(ring|pytorch)_profiler|run_workload.*|enable_(ft|msc|gloo|one_logger|experimental).*|disable_(gloo|straggler).*)",
            "(params_dtype|data_cache_path|image_.*|num_classes|img_.*|vision_.*|bert_.*|retriever_.*|biencoder.*|ict_.*|inference_.*)",
            "(is_hybrid_model|hybrid_.*_ratio|mamba_.*|global_vars|rank|local_world_size|consumed_.*|iteration|autocast_dtype)",
            "(calculate_per_token_loss|hierarchical_context_parallel_sizes|straggler.*|fim_.*|rerun_.*|error_injection.*|result_.*)",
        )
    )
)
"""Names that match in full."""
